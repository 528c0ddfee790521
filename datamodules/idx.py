"""Images and labels in IDX files, the format of MNIST, Fashion-MNIST, EMNIST and others.

Legend: N images of T x T pixels, C channels, S x S pixels for the encoder.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.class_symmetries import check_share, turn_batch
from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples, copy_numbers
from datamodules.sampling.splits import split_samples
from datamodules.sources.grey import GreyImages, check_grey
from datamodules.sources.preflight import check_given
from metric_module.batch import Batch
from metric_module.errors import UserError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
BYTES = 8
AUGMENT = Augment(hue=0.0, fill=-1.0)  # one channel, on black


@dataclass(eq=False, repr=False)
class IDXDataModule(PKDataModule):
    """Images of IDX files in a folder, plain or gzipped, split by class: a class is in train, in val or in test.

    Every ``*images-idx3-ubyte`` is read with the ``*labels-idx1-ubyte`` of the same name; how the files divide the
    samples (``train-``, ``t10k-``) is not looked at, because classes are what is held out. Inputs are float32
    ``(B, C, S, S)`` in [-1, 1], all of them in memory, so ``num_workers=0`` serves well.

    Args:
        root: The folder.
        prefix: Read only files whose name begins with this: ``emnist-balanced-``, where a folder has several sets.
        image_size: S.
        channels: C: 1, or 3 copies of it.
        class_names: Name of each label, from 0; without any, the labels are their own names.
        eval_per_class: Most samples of a class in val and test, its first ones: with thousands, every query has
            thousands of positives, and ranking them takes long. In Fashion-MNIST these are the files ``t10k-``.
        class_turns: While training, probability that a class of a batch is turned or mirrored, all its images alike,
            into a class of its own; see :func:`datamodules.augmentation.class_symmetries.turn_classes`.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: A number is out of range; later, if a file is missing or damaged, or the files do not fit together.
    """

    _: KW_ONLY
    root: str
    prefix: str = ""
    image_size: int = 28
    channels: int = 1
    class_names: Sequence[str] = ()
    eval_per_class: int = 1000
    class_turns: float = 0.0
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.root", self.root)
        check_grey(self.image_size, self.channels)
        check_share(self.class_turns)
        if self.eval_per_class < 2:
            raise UserError(f"datamodule.eval_per_class: expected an integer >= 2, got {self.eval_per_class}")

    @override
    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Turn whole classes, a function of (seed, epoch, class), then augment each image."""
        return super().augment_batch(turn_batch(batch, self.class_turns, seed=self.seed, epoch=epoch), epoch)

    @override
    def load(self) -> Samples:
        """Read all files and split the classes."""
        images, found = read_folder(Path(self.root), self.prefix)
        values, labels = torch.unique(found, return_inverse=True)
        if len(self.class_names) and int(values.max()) >= len(self.class_names):
            raise UserError(
                f"datamodule.class_names: expected a name for each label up to {int(values.max())}, "
                f"got {len(self.class_names)}"
            )
        names = [self.class_names[value] if len(self.class_names) else str(value) for value in values.tolist()]
        splits = split_samples(labels, names, seed=self.split_seed, fractions=self.fractions)
        for split in ("val", "test"):
            splits[split] = first_of_each(splits[split], labels, self.eval_per_class)
        return Samples(
            fetch=GreyImages(images, self.image_size, self.channels),
            labels=labels,
            splits=splits,
            class_names=names,
        )


def first_of_each(ids: Tensor, labels: Tensor, most: int) -> Tensor:
    """The first samples of each class, in the order of their ids.

    Args:
        ids: Of the samples to choose from, int64 ``(n,)``, ascending.
        labels: Class of every sample, int64 ``(N,)``.
        most: How many of a class.

    Example:
        >>> first_of_each(torch.tensor([0, 1, 2, 4]), torch.tensor([7, 7, 7, 8, 8]), most=2)
        tensor([0, 1, 4])
    """
    return ids[copy_numbers(labels[ids]) < most]


def read_folder(root: Path, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Images uint8 ``(N, T, T)`` and labels int64 ``(N,)`` of all pairs of files in a folder, in order of their names.

    Args:
        root: The folder.
        prefix: How the names begin.

    Raises:
        UserError: There is no folder or no such file, a file is damaged, or files do not fit together.
    """
    if not root.is_dir():
        raise UserError(f"datamodule.root: no such folder: {root}")
    pictures = sorted(path for path in root.glob(f"*{IMAGES}*") if path.name.startswith(prefix))
    if not pictures:
        raise UserError(f"{root}: expected files {prefix}*{IMAGES} or {prefix}*{IMAGES}.gz, got none")
    parts = [_read_pair(path) for path in pictures]
    shapes = sorted({tuple(images.shape[1:]) for images, _ in parts})
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        raise UserError(f"{root}: expected square images of one size, got {shapes}; datamodule.prefix chooses files")
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def _read_pair(path: Path) -> tuple[Tensor, Tensor]:
    """Images and labels of a file of images and of the one beside it."""
    beside = path.with_name(path.name.replace(IMAGES, LABELS))
    images, labels = read_idx(path, 3), read_idx(beside, 1).long()
    if len(images) != len(labels):
        raise UserError(f"{path}: {len(images)} images, but {len(labels)} labels in {beside.name}")
    return images, labels


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Bytes of an IDX file, plain or gzipped, uint8.

    It begins with two zeros, the type (8 is bytes) and the number of dimensions, and the size of each in 32 bits.

    Args:
        path: The file.
        dimensions: How many there should be.

    Raises:
        UserError: The file is missing or cannot be read, is of another kind, or shorter or longer than it says.
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
    if len(content) - start != int(np.prod(shape)):
        raise UserError(
            f"{path} is damaged: expected {' x '.join(map(str, shape))} bytes of content, got {len(content) - start}"
        )
    return torch.frombuffer(bytearray(content[start:]) or bytearray(1), dtype=torch.uint8)[: len(content) - start].view(
        shape
    )
