"""Images in folders, one folder for each class.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.checks import check_at_least
from datamodules.messages import listed, shortened
from datamodules.sampling.dataset import Samples
from datamodules.sampling.splits import SPLITS
from datamodules.sampling.verification_pairs import read_pairs
from datamodules.sources.addresses import inside, is_address, suffix_of
from datamodules.sources.folders import Scan, open_folder, scan_folder
from datamodules.sources.images import DecodedImages, ImageFiles
from datamodules.sources.object_images import ObjectImages
from datamodules.sources.paths import Paths
from metric_module.errors import UserError
from metric_module.preprocessing.reading import image_suffixes


@dataclass(eq=False, repr=False)
class ImageFolderDataModule(PKDataModule):
    """A folder of images per class: ``root/class/*.jpg``, or ``root/{train,val,test}/class/*.jpg`` if split already.

    Without the folders train, val and test, classes are split as :func:`datamodules.split_classes` does. Inputs are
    float32 ``(B, 3, S, S)`` in [-1, 1]: the shorter side is scaled to S, and the central square is used.

    Before the first step every file is read once, in parallel, and again only if its size or time of change differs.
    Files that cannot be used are listed, and so are classes of a single sample and files whose content is in two
    splits. Files that Pillow does not read, folders without images, and images deeper than ``root/class``, are ignored
    with a warning.

    Args:
        root: The folder, or its address (``s3://...``).
        image_size: S.
        class_depth: Number of folders that make a class: with 2, ``root/alphabet/character/*.png`` is an image of class
            ``alphabet/character``.
        pairs_file: LFW's ``pairs.txt`` with the pairs that verification compares: ``name 1`` is
            ``root/name/name_0001.*``.
        cache_dir: Folder in which the preflight remembers files it has read, and where copies of objects are; None:
            ``lightning-triplets`` in the user's cache folder.
        cache_gb: Largest size of these copies in gigabytes.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: An argument is out of range; in ``load``: there are no images; in ``prepare_data``: files cannot be
            used.
    """

    _: KW_ONLY
    root: str
    image_size: int = 64
    class_depth: int = 1
    pairs_file: str | None = None
    cache_dir: str | None = None
    cache_gb: float = 10.0
    eval_batch_size: int = 256
    num_workers: int = 2
    augment: AugmentFunction | None = IMAGE_AUGMENT
    class_turns: float | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("datamodule.class_depth", self.class_depth, 1)

    @override
    def load(self) -> Samples:
        """List the files and split the classes; no image is read yet.

        Raises:
            UserError: There are no images, or only some of the folders train, val and test.
        """
        root, scan = open_folder(self.root)
        folders = {entry.name: entry.path for entry in scan(root) if entry.is_dir()}
        given = [name for name in SPLITS if name in folders]
        if self.any_items and len(given) < len(SPLITS):
            given = []
        if given and len(given) < len(SPLITS):
            missing = ", ".join(name for name in SPLITS if name not in given)
            raise UserError(
                f"{self.root}: expected train, val and test, or a folder for each class; missing: {missing}"
            )
        lists = {
            name: list_classes(folders.get(name, root), self.class_depth, every=self.any_items, scan=scan)
            for name in given or [""]
        }
        _warn_of_ignored([*lists.values()])
        names = sorted({name for found in lists.values() for name in found.images if name})
        code = {name: label for label, name in enumerate(names)} | {"": -1}
        rows = [
            (split, code[name], path)
            for split, found in lists.items()
            for name, paths in found.images.items()
            for path in paths
        ]
        labels = torch.tensor([label for _, label, _ in rows])  # (N,)
        if given:
            split_of = np.array([split for split, _, _ in rows])
            splits = {split: torch.from_numpy((split_of == split).nonzero()[0]) for split in SPLITS}
        else:
            splits = self.own_split(labels, names)
        paths = Paths(path for _, _, path in rows)
        images = self._source(paths)
        pairs = None if self.pairs_file is None else read_pairs(self.pairs_file, _numbered(path for *_, path in rows))
        return Samples(images, labels, splits, class_names=names, listed=pairs)

    def _source(self, paths: Paths) -> DecodedImages:
        if is_address(self.root):
            return ObjectImages(paths, self.image_size, self.cache_dir, self.cache_gb)
        return ImageFiles(paths, self.image_size, self.cache_dir)


def _numbered(paths: Iterable[str]) -> dict[tuple[str, int], int]:
    """Map class name and number to the id of the image ``name/name_0001.jpg``."""
    found = {}
    for row, path in enumerate(Path(inside(path)) for path in paths):
        name, _, number = path.stem.rpartition("_")
        if name == path.parent.name and number.isdigit():
            found[name, int(number)] = row
    return found


def _is_image(name: str) -> bool:
    """Decide by the suffix; hidden files such as ``._1.jpg`` are leftovers of operating systems."""
    return name[0] != "." and Path(name).suffix.lower() in image_suffixes()


class Classes(NamedTuple):
    """Images in a folder of classes.

    Attributes:
        images: Sorted paths of the images of each class, by the name of its folder, or of its folders joined by ``/``.
        empty: Folders that contain no image directly.
        deeper: Images in subfolders of the class folders.
        others: Other files in the folders.
    """

    images: dict[str, list[str]]
    empty: list[str]
    deeper: list[str]
    others: list[str]


def list_classes(folder: str, depth: int = 1, every: bool = False, scan: Scan = scan_folder) -> Classes:
    """Find the images of each class; hidden files and folders are skipped.

    Args:
        folder: Folder with one folder for each class.
        depth: Number of folders that make a class.
        every: Whether to list all other images as well, as those of a class without a name.
        scan: Lists a folder.

    Raises:
        UserError: Its folders contain no images.
    """
    found = Classes({}, [], [], [])
    for place in _folders_at(folder, depth, found.others, scan):
        images, deeper = _list_images(place, found.others, scan)
        if images:
            found.images[Path(place).relative_to(folder).as_posix()] = images
        else:
            found.empty.append(place)
        found.deeper.extend(deeper)
    if every:
        loose = sorted(path for path in found.others if _is_image(Path(inside(path)).name))
        if loose or found.deeper:
            found.images[""] = loose + found.deeper
        others = [path for path in found.others if not _is_image(Path(inside(path)).name)]
        found = found._replace(empty=[], deeper=[], others=others)
    if not found.images:
        kinds = ".jpg, .png and all others that Pillow reads"
        got = f"all {len(found.deeper)} images further down, such as {found.deeper[0]}" if found.deeper else "none"
        if found.deeper:
            got += f" (datamodule.class_depth={depth + 1} makes a class of {depth + 1} folders)"
        raise UserError(f"datamodule.root: {folder}: expected a folder of images for each class ({kinds}), got {got}")
    return found


def _folders_at(folder: str, depth: int, others: list[str], scan: Scan) -> list[str]:
    """List the folders at a depth, sorted; files on the way to them are added to the others."""
    seen = sorted(scan(folder), key=lambda entry: entry.path)
    others += [entry.path for entry in seen if not entry.is_dir()]
    inside = [entry.path for entry in seen if entry.is_dir()]
    return inside if depth == 1 else [below for path in inside for below in _folders_at(path, depth - 1, others, scan)]


def _list_images(place: str, others: list[str], scan: Scan) -> tuple[list[str], list[str]]:
    """List the images in a folder, and those in its subfolders at any depth, sorted; add other files to the others."""
    seen = sorted(scan(place), key=lambda entry: entry.name)  # by name: in an address it may be spelt otherwise
    images = [entry.path for entry in seen if _is_image(entry.name)]
    deeper = []
    for entry in seen:
        if _is_image(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            direct, further = _list_images(entry.path, others, scan)
            deeper += direct + further
        else:
            others.append(entry.path)
    return images, sorted(deeper)


def _warn_of_ignored(lists: list[Classes]) -> None:
    empty = [folder for found in lists for folder in found.empty]
    deeper = [path for found in lists for path in found.deeper]
    for line in listed("folders contain no image directly, and are ignored", empty):
        rank_zero_warn(f"data: {line}")
    if deeper:
        rank_zero_warn(f"data: {len(deeper)} images in subfolders of class folders are ignored: {deeper[0]}, ...")
    others = [path for found in lists for path in found.others]
    if others:
        kinds = sorted({suffix_of(path) or "no extension" for path in others})
        rank_zero_warn(
            f"data: {len(others)} files are no images in a class folder, and are ignored "
            f"({shortened(kinds)}): {shortened(sorted(others), 3)}"
        )
