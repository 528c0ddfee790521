"""The default data set, shipped with the package: each emoji is a class, each sample another designer's drawing of it.

Legend: N images of T x T pixels in the sheet, S x S pixels for the encoder.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.class_symmetries import check_share, turn_batch
from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.grouping import codes
from datamodules.sampling.splits import split_samples
from datamodules.sources.images import check_image_size
from datamodules.sources.pictures import as_pictures, resize
from metric_module.batch import Batch
from metric_module.errors import UserError

FOLDER = Path(__file__).parent / "data"
GROUPS = {
    "emojione": 0,
    "fluent-emoji": 1,
    "fluent-emoji-flat": 1,
    "fxemoji": 2,
    "noto": 3,
    "noto-v1": 3,
    "twemoji": 4,
}
TILE = 64
CHUNK = 512
AUGMENT = Augment(flip=0.0)  # a mirrored emoji can be another one: arrows, hands, faces that look aside


@dataclass(eq=False, repr=False)
class EmojiDataModule(PKDataModule):
    """1,055 emoji drawn by five to seven design families each, split into 633 / 211 / 211 classes that none trains on.

    Two protocols: retrieval among all drawings, and, by :attr:`groups`, across families, where a drawing of the query's
    own family or of its sibling (noto and noto-v1, fluent-emoji and fluent-emoji-flat) is ignored. Inputs are float32
    ``(B, 3, S, S)`` in [-1, 1], that is with mean and standard deviation 0.5 taken off. A few pictures serve for two
    emoji (``up-button`` and ``upwards-button``, ``cricket`` and ``cricket-game``), as their families draw them.

    Args:
        image_size: S. Sizes that divide 64 are area averages; others are resized bilinearly with antialiasing.
        class_turns: While training, probability that a class of a batch is turned or mirrored, all its images alike,
            into a class of its own; see :func:`datamodules.augmentation.class_symmetries.turn_classes`.

    Other arguments are those of :class:`datamodules.PKDataModule`; the images are in memory, so ``num_workers=0``
    serves well.

    Raises:
        UserError: A number is out of range; later, if the shipped files are missing or damaged.
    """

    _: KW_ONLY
    image_size: int = 32
    class_turns: float = 0.6
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)
        check_share(self.class_turns)

    @override
    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Turn whole classes, a function of (seed, epoch, class), then augment each image."""
        return super().augment_batch(turn_batch(batch, self.class_turns, seed=self.seed, epoch=epoch), epoch)

    @override
    def load(self) -> Samples:
        """Decode the sheet and split the classes."""
        classes, families = read_index(FOLDER)
        labels, names = codes(classes)  # (N,)
        return Samples(
            fetch=EmojiImages(read_images(FOLDER, len(labels), min(self.image_size, TILE)), self.image_size),
            labels=labels,
            splits=split_samples(labels, names, seed=self.split_seed, fractions=self.fractions),
            class_names=names,
            groups=torch.tensor([GROUPS[family] for family in families]),
        )


class EmojiImages(Source):
    """Images by id, as the encoder takes them.

    Args:
        images: Uint8 ``(N, 3, T, T)``.
        image_size: S.
    """

    def __init__(self, images: Tensor, image_size: int) -> None:
        self.images = images
        self.image_size = image_size

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, 3, S, S)`` in [-1, 1] of int64 ids ``(B,)``."""
        return resize(self.images[ids].float().div_(127.5).sub_(1), self.image_size)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The drawings."""
        return [*as_pictures(self(torch.tensor(list(ids), dtype=torch.int64)))]


def read_index(folder: Path) -> tuple[list[str], list[str]]:
    """Class and family of each tile of the sheet.

    Raises:
        UserError: The index is missing, or has no such columns, or names an unknown family.
    """
    path = folder / "emoji.csv"
    _require(path)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != ["class", "family"] or not rows or {len(row) for row in rows} != {2}:
        raise UserError(f"{path} is damaged: expected rows of class,family under that header, got header {header}")
    unknown = sorted({family for _, family in rows} - set(GROUPS))
    if unknown:
        raise UserError(f"{path} names unknown families {', '.join(unknown)}: expected some of {', '.join(GROUPS)}")
    return [name for name, _ in rows], [family for _, family in rows]


def read_images(folder: Path, count: int, size: int) -> Tensor:
    """Decode the first images of the sheet at some size, uint8 ``(N, 3, S, S)``.

    Raises:
        UserError: The sheet is missing, unreadable, or too small.
    """
    path = folder / "emoji.png"
    _require(path)
    try:
        with Image.open(path) as sheet:
            if sheet.mode != "P":
                raise ValueError(f"expected a palette image, got mode {sheet.mode}")
            palette = np.array(sheet.getpalette(), np.uint8).reshape(-1, 3)  # (K, 3)
            tiles = _tiles(np.asarray(sheet))  # (N or more, T, T)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if len(tiles) < count:
        raise UserError(f"{path} is damaged: expected at least {count} tiles, got {len(tiles)}")
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        for channel in range(3):
            plane = torch.from_numpy(palette[:, channel].take(tiles[part]))[:, None]  # (CHUNK, 1, T, T)
            images[part, channel : channel + 1] = resize(plane.float(), size).round_().clamp_(0, 255).byte()
    return images


def _tiles(sheet: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut a sheet of palette indices into tiles, row by row: ``(N, T, T)``."""
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    return sheet.reshape(rows, TILE, columns, TILE).transpose(0, 2, 1, 3).reshape(-1, TILE, TILE)


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"no file {path}: it ships with the package; install lightning-triplets again")
