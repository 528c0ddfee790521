"""Images and labels in IDX files, the format of MNIST, Fashion-MNIST, EMNIST and others.

Legend: N = images, T = side as stored in pixels, C = channels, B = images in a batch, S = side of an encoder input.
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

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.checks import check_at_least, check_choice, check_folder
from datamodules.sampling.dataset import Samples, copy_numbers
from datamodules.sources.images_in_memory import ImagesInMemory
from metric_module.errors import UserError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
BYTES = 8
AUGMENT = Augment(hue=0.0, fill=-1.0)  # one channel, on black


@dataclass(eq=False, repr=False)
class IDXDataModule(PKDataModule):
    """Images of IDX files in a folder, plain or gzipped, with a split by class.

    Every ``*images-idx3-ubyte`` file is read with its ``*labels-idx1-ubyte`` file. The division of samples into files
    (``train-``, ``t10k-``) is ignored, because whole classes are held out. Inputs are float32 ``(B, C, S, S)`` in
    [-1, 1], held in memory, so ``num_workers=0`` is fast enough.

    Args:
        root: Folder of the files.
        prefix: Read only files whose names begin with this: ``emnist-balanced-``, if the folder has several data sets.
        image_size: S.
        channels: C: 1, or 3 equal channels.
        class_names: Name of each label, from 0; empty: labels are their own names.
        eval_per_class: Maximum number of samples of a class in val and test, the first ones: with thousands, every
            query has thousands of positives, and ranking takes long. In Fashion-MNIST the first thousand are the
            ``t10k-`` files.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: A number is out of range; in ``load``: a file is missing or damaged, or files do not fit together.
    """

    _: KW_ONLY
    root: str
    prefix: str = ""
    image_size: int = 28
    channels: int = 1
    class_names: Sequence[str] = ()
    eval_per_class: int = 1000
    augment: AugmentFunction | None = AUGMENT
    duplicates: str = "keep"  # as published

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("datamodule.channels", self.channels, (1, 3))
        check_at_least("datamodule.eval_per_class", self.eval_per_class, 2)

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
        splits = self.own_split(labels, names)
        for split in splits.keys() & {"val", "test"}:
            splits[split] = first_of_each(splits[split], labels, self.eval_per_class)
        source = ImagesInMemory(images[:, None], self.image_size, self.channels, background=0)
        return Samples(source, labels, splits, class_names=names)


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


def read_folder(root: Path, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Read images uint8 ``(N, T, T)`` and labels int64 ``(N,)`` of all files in a folder, ordered by file name.

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
    return torch.cat([images for images, _ in files]), torch.cat([labels for _, labels in files])


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
