"""Images of one's own: a folder for each class.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples, listed
from datamodules.sampling.splits import SPLITS, split_samples
from datamodules.sampling.verification_pairs import read_pairs
from datamodules.sources.images import ImageFiles, check_image_size
from datamodules.sources.preflight import Paths, check_given
from metric_module.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
AUGMENT = Augment()


@dataclass(eq=False, repr=False)
class ImageFolderDataModule(PKDataModule):
    """A folder of images per class: ``root/class/*.jpg``, or ``root/{train,val,test}/class/*.jpg`` if split already.

    Without folders of that name the classes are split as :func:`datamodules.split_classes` does. Inputs are float32
    ``(B, 3, S, S)`` in [-1, 1]: the shorter side is scaled to S, the middle cut out.

    Before the first step every file is read once (in parallel; again only if its size or time changes), and all that
    cannot be used are listed, with classes of a single sample and files whose content is in two splits. Folders without
    images, and images further down than ``root/class``, are left out with a warning.

    Args:
        root: The folder.
        image_size: S.
        pairs_file: LFW's ``pairs.txt``, whose pairs verification then looks at: ``name 1`` is
            ``root/name/name_0001.*``.
        cache_dir: Where the preflight remembers what it read; None: ``lightning-triplets`` in the user's cache folder.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: An argument is out of range; later, if there are no images, or the preflight finds something.
    """

    _: KW_ONLY
    root: str
    image_size: int = 64
    pairs_file: str | None = None
    cache_dir: str | None = None
    eval_batch_size: int = 256
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.root", self.root)
        check_image_size(self.image_size)

    @override
    def load(self) -> Samples:
        """List the files and split the classes; nothing is read yet."""
        root = Path(self.root)
        folders = [root / name for name in SPLITS]
        given = [folder for folder in folders if folder.is_dir()]
        if given and len(given) < len(folders):
            missing = ", ".join(folder.name for folder in folders if folder not in given)
            raise UserError(f"{root}: expected train, val and test, or a folder for each class; missing: {missing}")
        lists = {folder.name: list_classes(folder) for folder in given} or {"": list_classes(root)}
        _warn_of_left_out([*lists.values()])
        trees = {split: found.images for split, found in lists.items()}
        names = sorted({name for tree in trees.values() for name in tree})
        code = {name: label for label, name in enumerate(names)}
        rows = [(split, code[name], path) for split, tree in trees.items() for name in tree for path in tree[name]]
        labels = torch.tensor([label for _, label, _ in rows])  # (N,)
        if given:
            of_split = np.array([split for split, _, _ in rows])
            splits = {split: torch.from_numpy((of_split == split).nonzero()[0]) for split in SPLITS}
        else:
            splits = split_samples(labels, names, seed=self.split_seed, fractions=self.fractions)
        images = ImageFiles(Paths(path for _, _, path in rows), self.image_size, self.cache_dir)
        pairs = None if self.pairs_file is None else read_pairs(self.pairs_file, _numbered(path for *_, path in rows))
        return Samples(fetch=images, labels=labels, splits=splits, class_names=names, listed=pairs)


def _numbered(paths: Iterable[str]) -> dict[tuple[str, int], int]:
    """Id of the image ``name/name_0001.jpg`` of each name and number."""
    found = {}
    for row, path in enumerate(map(Path, paths)):
        name, _, number = path.stem.rpartition("_")
        if name == path.parent.name and number.isdigit():
            found[name, int(number)] = row
    return found


def _is_image(name: str) -> bool:
    """By its suffix; hidden ones are what systems leave behind, such as ``._1.jpg``."""
    return name[0] != "." and Path(name).suffix.lower() in SUFFIXES


class Classes(NamedTuple):
    """What a folder of classes holds.

    Attributes:
        images: Sorted paths of the images of each class, by the name of its folder.
        empty: Folders without an image of their own.
        deeper: Images in folders of these folders.
    """

    images: dict[str, list[str]]
    empty: list[str]
    deeper: list[str]


def list_classes(folder: Path) -> Classes:
    """Find the images of each class; hidden files and folders are left out.

    Raises:
        UserError: There is no such folder, or there are no images in folders of it.
    """
    if not folder.is_dir():
        raise UserError(f"datamodule.root: no such folder: {folder}")
    found = Classes({}, [], [])
    for place in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
        images, below = _look_into(place)
        if images:
            found.images[Path(place).name] = images
        else:
            found.empty.append(place)
        found.deeper.extend(below)
    if not found.images:
        kinds = ", ".join(sorted(SUFFIXES))
        got = f"all {len(found.deeper)} images further down, such as {found.deeper[0]}" if found.deeper else "none"
        raise UserError(f"datamodule.root: {folder}: expected a folder of images for each class ({kinds}), got {got}")
    return found


def _look_into(place: str) -> tuple[list[str], list[str]]:
    """Sorted paths of the images in a folder, and of those in its folders, at any depth."""
    with os.scandir(place) as entries:
        seen = [entry for entry in entries if entry.name[0] != "."]
    images = sorted(entry.path for entry in seen if _is_image(entry.name))
    below = []
    for entry in seen:
        if not _is_image(entry.name) and entry.is_dir(follow_symlinks=False):
            own, further = _look_into(entry.path)
            below += own + further
    return images, sorted(below)


def _warn_of_left_out(lists: list[Classes]) -> None:
    empty = [folder for found in lists for folder in found.empty]
    deeper = [path for found in lists for path in found.deeper]
    for line in listed("folders have no image of their own, and are no class", empty):
        rank_zero_warn(f"data: {line}")
    if deeper:
        rank_zero_warn(
            f"data: {len(deeper)} images are in folders of class folders, and are left out: {deeper[0]}, ..."
        )
