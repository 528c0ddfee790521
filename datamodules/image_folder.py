"""Images of one's own: a folder for each class.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from typing_extensions import override

from datamodules.augment import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.files import Paths
from datamodules.images import ImageFiles, check_image_size
from datamodules.pairs import read_pairs
from datamodules.samples import Samples
from datamodules.splits import SPLITS, split_samples
from metric_module.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
AUGMENT = Augment()


@dataclass(eq=False, repr=False)
class ImageFolderDataModule(PKDataModule):
    """A folder of images per class: ``root/class/*.jpg``, or ``root/{train,val,test}/class/*.jpg`` if split already.

    Without folders of that name the classes are split as :func:`datamodules.split_classes` does. Inputs are float32
    ``(B, 3, S, S)`` in [-1, 1]: the shorter side is scaled to S, the middle cut out.

    Before the first step every file is read once (in parallel; again only if its size or time changes), and all that
    cannot be used are listed, with classes of a single sample and files whose content is in two splits.

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
        trees = {folder.name: list_classes(folder) for folder in given} or {"": list_classes(root)}
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
        listed = None if self.pairs_file is None else read_pairs(self.pairs_file, _numbered(path for *_, path in rows))
        return Samples(fetch=images, labels=labels, splits=splits, class_names=names, listed=listed)


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


def list_classes(folder: Path) -> dict[str, list[str]]:
    """Sorted paths of the images of each class, by the name of its folder; hidden files and folders are left out.

    Raises:
        UserError: There is no such folder, or there are no images in folders of it.
    """
    if not folder.is_dir():
        raise UserError(f"datamodule.root: no such folder: {folder}")
    found: dict[str, list[str]] = {}
    for place in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
        with os.scandir(place) as entries:
            images = sorted(entry.path for entry in entries if _is_image(entry.name))
        if images:
            found[Path(place).name] = images
    if not found:
        raise UserError(
            f"{folder}: expected a folder of images for each class ({', '.join(sorted(SUFFIXES))}), got none"
        )
    return found
