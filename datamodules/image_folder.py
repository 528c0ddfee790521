"""Images of one's own: a folder for each class.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.augment import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.files import Paths, check_images
from datamodules.pairs import read_pairs
from datamodules.pictures import as_pictures
from datamodules.samples import BadSampleError, Samples
from datamodules.splits import split_samples
from metric_module.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "test")
AUGMENT = Augment()


class ImageFolderDataModule(PKDataModule):
    """A folder of images per class: ``root/class/*.jpg``, or ``root/{train,val,test}/class/*.jpg`` if split already.

    Without folders of that name the classes are split as :func:`datamodules.split_classes` does. Inputs are float32
    ``(B, 3, S, S)`` in [-1, 1]: the shorter side is scaled to S, the middle cut out.

    Before the first step every file is read once (in parallel; again only if its size or time changes), and all that
    cannot be used are listed, with classes of a single sample and files whose content is in two splits.

    Args:
        root: The folder.
        classes_per_batch: P, over all ranks together.
        samples_per_class: K.
        image_size: S.
        split_seed: Names the split of the classes.
        seed: Names the order of training and the draws of augmentation.
        eval_batch_size: Samples per evaluation batch on each rank.
        num_workers: Processes that load.
        augment: Maps images and one int64 key per image to images while training; None leaves them.
        short_classes: What to do with classes of fewer than K samples: ``repeat``, ``drop`` or ``error``.
        fractions: Shares of the classes for train, val and test.
        fold: Which fold of the classes of train and val is val; None: as split.
        folds: How many folds there are.
        preflight: Whether to read every file before the first step.
        on_bad_sample: What a file that cannot be read leads to while training: ``error``, or ``replace`` by another
            sample of its class.
        pairs: LFW's ``pairs.txt``, whose pairs verification then looks at: ``name 1`` is ``root/name/name_0001.*``.
        cache_dir: Where the preflight remembers what it read; None: ``lightning-triplets`` in the user's cache folder.

    Raises:
        UserError: An argument is out of range; later, if there are no images, or the preflight finds something.
    """

    def __init__(
        self,
        root: str,
        classes_per_batch: int = 32,
        samples_per_class: int = 4,
        image_size: int = 64,
        split_seed: int = 0,
        seed: int = 0,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        augment: AugmentFunction | None = AUGMENT,
        short_classes: str = "repeat",
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        fold: int | None = None,
        folds: int = 4,
        preflight: bool = True,
        on_bad_sample: str = "error",
        pairs: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(
            classes_per_batch,
            samples_per_class,
            seed=seed,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            augment=augment,
            short_classes=short_classes,
            split_seed=split_seed,
            fold=fold,
            folds=folds,
            on_bad_sample=on_bad_sample,
        )
        if image_size < 1:
            raise UserError(f"expected image_size >= 1, got {image_size}")
        self.root = Path(root)
        self.image_size = image_size
        self.fractions = fractions
        self.preflight = preflight
        self.pairs_file = pairs
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.cache_dir = Path(home) / "lightning-triplets" if cache_dir is None else Path(cache_dir)

    @override
    def prepare_data(self) -> None:
        """Read every file once, on one process of each machine."""
        samples = self.samples
        if self.preflight:
            images = samples.fetch
            assert isinstance(images, ImageFiles)
            splits = dict(samples.splits)
            if self.short_classes == "drop":
                count = samples.labels[splits["train"]].bincount(minlength=len(samples.class_names))
                splits["train"] = splits["train"][count[samples.labels[splits["train"]]] > 1]
            check_images(images.paths, samples.labels, samples.class_names, splits, self.cache_dir / "files.sqlite")

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The images; of a file that cannot be read any more, its name."""
        images = self.samples.fetch
        assert isinstance(images, ImageFiles)
        shown: list[Image.Image | str] = []
        for row in ids:
            try:
                shown += as_pictures(images(torch.tensor([row])))
            except BadSampleError:
                shown.append(Path(images.paths[row]).name)
        return shown

    @override
    def load(self) -> Samples:
        """List the files and split the classes; nothing is read yet."""
        folders = [self.root / name for name in SPLITS]
        given = [folder for folder in folders if folder.is_dir()]
        if given and len(given) < len(folders):
            missing = ", ".join(folder.name for folder in folders if folder not in given)
            raise UserError(
                f"{self.root}: expected train, val and test, or a folder for each class; missing: {missing}"
            )
        trees = {folder.name: list_classes(folder) for folder in given} or {"": list_classes(self.root)}
        names = sorted({name for tree in trees.values() for name in tree})
        code = {name: label for label, name in enumerate(names)}
        rows = [(split, code[name], path) for split, tree in trees.items() for name in tree for path in tree[name]]
        labels = torch.tensor([label for _, label, _ in rows])  # (N,)
        if given:
            of_split = np.array([split for split, _, _ in rows])
            splits = {split: torch.from_numpy((of_split == split).nonzero()[0]) for split in SPLITS}
        else:
            splits = split_samples(labels, names, seed=self.split_seed, fractions=self.fractions)
        images = ImageFiles(Paths(path for _, _, path in rows), self.image_size)
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


class ImageFiles:
    """Images by id, as the encoder takes them.

    Args:
        paths: The file of each, N.
        image_size: S.
    """

    def __init__(self, paths: Paths, image_size: int) -> None:
        self.paths = paths
        self.image_size = image_size

    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, 3, S, S)`` in [-1, 1] of int64 ids ``(B,)``.

        Raises:
            BadSampleError: The first file that cannot be read.
        """
        images = torch.empty(len(ids), self.image_size, self.image_size, 3, dtype=torch.uint8)
        for place, row in enumerate(ids.tolist()):
            try:
                images[place] = torch.from_numpy(read_image(self.paths[row], self.image_size))
            except Exception as error:  # Pillow raises many kinds
                raise BadSampleError(row, f"{self.paths[row]} ({str(error).splitlines()[0]})") from error
        return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def read_image(path: str, size: int) -> np.ndarray:
    """The middle square of an image, uint8 ``(S, S, 3)``."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * size, 2 * size))  # lets a JPEG be decoded at a fraction of its size
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        box = (left, top, left + edge, top + edge)
        return np.array(image.convert("RGB").crop(box).resize((size, size), Image.Resampling.BILINEAR))


def list_classes(folder: Path) -> dict[str, list[str]]:
    """Sorted paths of the images of each class, by the name of its folder.

    Raises:
        UserError: There is no such folder, or there are no images in folders of it.
    """
    if not folder.is_dir():
        raise UserError(f"datamodule.root: no such folder: {folder}")
    found: dict[str, list[str]] = {}
    for place in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()):
        with os.scandir(place) as entries:
            images = sorted(entry.path for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES)
        if images:
            found[Path(place).name] = images
    if not found:
        raise UserError(
            f"{folder}: expected a folder of images for each class ({', '.join(sorted(SUFFIXES))}), got none"
        )
    return found
