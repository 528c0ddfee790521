"""Images and labels in IDX files, the format of MNIST, Fashion-MNIST, EMNIST and others.

Legend: N = images, T = side as stored in pixels, C = channels, B = images in a batch, S = side of an encoder input.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.checks import check_at_least, check_choice, check_folder
from datamodules.sampling.dataset import Samples, copy_numbers
from datamodules.sampling.sample_splits import hold_out_within
from datamodules.sources.images_in_memory import ImagesInMemory
from metric_module.errors import UserError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
TESTS = (f"t10k-{IMAGES}", f"test-{IMAGES}")
"""In the names of test files: MNIST's and Fashion-MNIST's, and EMNIST's."""
BYTES = 8
AUGMENT = Augment(hue=0.0, fill=-1.0)  # one channel, on black


@dataclass(eq=False, repr=False)
class IDXDataModule(PKDataModule):
    """Images of IDX files in a folder, plain or gzipped.

    Every ``*images-idx3-ubyte`` file is read with its ``*labels-idx1-ubyte`` file. By default whole classes are held
    out, and the division of samples into files is ignored. With ``split_by="file"`` test is the ``t10k-`` files (of
    EMNIST: ``test-``), train and val are the images of the others, and figures are those of a closed set: the test
    classes are trained on. Inputs are float32 ``(B, C, S, S)`` in [-1, 1], held in memory, so ``num_workers=0`` is fast
    enough.

    Args:
        root: Folder of the files.
        prefix: Read only files whose names begin with this: ``emnist-balanced-``, if the folder has several data sets.
        image_size: S.
        channels: C: 1, or 3 equal channels.
        class_names: Name of each label, from 0; empty: labels are their own names.
        eval_per_class: Maximum number of samples of a class in val and test, the first ones: with thousands, every
            query has thousands of positives, and ranking takes long. In Fashion-MNIST the first thousand are the
            ``t10k-`` files. With ``split_by="file"`` all samples are used.
        split_by: Unit of the split: ``class``, ``sample``, see :class:`datamodules.PKDataModule`, or ``file``.
        val_fraction: With ``split_by="file"``, the share of the images of each class outside of the test files that is
            val, drawn by ``split_seed``.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: A number is out of range; in ``load``: a file is missing or damaged, or files do not fit together.
    """

    split_units: ClassVar[Sequence[str]] = ("class", "sample", "file")

    _: KW_ONLY
    root: str
    prefix: str = ""
    image_size: int = 28
    channels: int = 1
    class_names: Sequence[str] = ()
    eval_per_class: int = 1000
    val_fraction: float = 0.1
    augment: AugmentFunction | None = AUGMENT
    duplicates: str = "keep"  # as published

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("datamodule.channels", self.channels, (1, 3))
        check_at_least("datamodule.eval_per_class", self.eval_per_class, 2)

    @override
    def load(self) -> Samples:
        """Read all files, and split the classes or the images."""
        images, found, tested = read_folder(Path(self.root), self.prefix)
        values, labels = torch.unique(found, return_inverse=True)
        if len(self.class_names) and int(values.max()) >= len(self.class_names):
            raise UserError(
                f"datamodule.class_names: expected a name for each label up to {int(values.max())}, "
                f"got {len(self.class_names)}"
            )
        names = [self.class_names[value] if len(self.class_names) else str(value) for value in values.tolist()]
        source = ImagesInMemory(images[:, None], self.image_size, self.channels, background=0)
        if self.split_by == "file":
            return Samples(source, labels, self._split_by_file(labels, tested), class_names=names)
        splits = self.own_split(labels, names)
        for split in splits.keys() & {"val", "test"}:
            splits[split] = first_of_each(splits[split], labels, self.eval_per_class)
        return Samples(source, labels, splits, class_names=names)

    def _split_by_file(self, labels: Tensor, tested: Tensor) -> dict[str, Tensor]:
        """Return the ids of train, val and test; none if the items are only embedded and are not divided into files."""
        if self.any_items and (not tested.any() or tested.all()):
            return {}
        if not tested.any() or tested.all():
            raise UserError(
                f"datamodule.split_by=file: {self.root}: expected files *{TESTS[0]} or *{TESTS[1]} for the test and "
                f"others for training, got {'no others' if tested.any() else 'none for the test'}"
            )
        rest = (~tested).nonzero()[:, 0]  # (n,)
        held = hold_out_within(labels[rest], self.val_fraction, seed=self.split_seed)  # (n,)
        return {"train": rest[~held], "val": rest[held], "test": tested.nonzero()[:, 0]}


class Folder(NamedTuple):
    """Content of the files in a folder.

    Attributes:
        images: uint8 ``(N, T, T)``.
        labels: int64 ``(N,)``.
        tested: Whether each image is in a file of the test, bool ``(N,)``.
    """

    images: Tensor
    labels: Tensor
    tested: Tensor


def first_of_each(ids: Tensor, labels: Tensor, most: int) -> Tensor:
    """Keep the first samples of each class, in the order of their ids.

    Args:
        ids: Samples to choose from, int64 ``(n,)``, ascending.
        labels: Class of every sample, int64 ``(N,)``.
        most: Maximum number of samples of a class.

    Example:
        >>> first_of_each(torch.tensor([0, 1, 2, 4]), torch.tensor([7, 7, 7, 8, 8]), most=2)
        tensor([0, 1, 4])
    """
    return ids[copy_numbers(labels[ids]) < most]


def read_folder(root: Path, prefix: str = "") -> Folder:
    """Read all files in a folder, ordered by file name.

    Args:
        root: The folder.
        prefix: Beginning of the file names.

    Raises:
        UserError: The folder or the files are missing, a file is damaged, or files do not fit together.
    """
    check_folder(root, "datamodule.root")
    pictures = sorted(path for path in root.glob(f"*{IMAGES}*") if path.name.startswith(prefix))
    if not pictures:
        raise UserError(f"{root}: expected files {prefix}*{IMAGES} or {prefix}*{IMAGES}.gz, got none")
    files = [_read_images_and_labels(path) for path in pictures]
    shapes = sorted({tuple(images.shape[1:]) for images, _ in files})
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        raise UserError(f"{root}: expected square images of one size, got {shapes}; datamodule.prefix chooses files")
    tests = torch.tensor([any(name in path.name for name in TESTS) for path in pictures])  # (files,)
    sizes = torch.tensor([len(labels) for _, labels in files])  # (files,)
    images, labels = (torch.cat(part) for part in zip(*files, strict=True))
    return Folder(images, labels, tests.repeat_interleave(sizes))


def _read_images_and_labels(path: Path) -> tuple[Tensor, Tensor]:
    """Read a file of images and its file of labels."""
    path_of_labels = path.with_name(path.name.replace(IMAGES, LABELS))
    images, labels = read_idx(path, 3), read_idx(path_of_labels, 1).long()
    if len(images) != len(labels):
        raise UserError(f"{path}: {len(images)} images, but {len(labels)} labels in {path_of_labels.name}")
    return images, labels


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read the bytes of an IDX file, plain or gzipped, as uint8.

    The file begins with two zero bytes, the type (8: bytes), the number of dimensions, and each size in 32 bits.

    Args:
        path: The file.
        dimensions: Expected number of dimensions.

    Raises:
        UserError: The file is missing, cannot be read, has another type, or is shorter or longer than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    expected, start = bytes([0, 0, BYTES, dimensions]), 4 + 4 * dimensions
    if content[:4] != expected or len(content) < start:
        raise UserError(f"{path} is no IDX file of that kind: expected {expected.hex()} first, got {content[:4].hex()}")
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int).tolist()
    values = np.frombuffer(content, np.uint8)[start:].copy()  # a copy, because torch needs memory it may write to
    if len(values) != int(np.prod(shape)):
        size = " x ".join(map(str, shape))
        raise UserError(f"{path} is damaged: expected {size} bytes of content, got {len(values)}")
    return torch.from_numpy(values.reshape(shape))
