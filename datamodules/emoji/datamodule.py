"""The default data set, shipped with the package: each emoji is a class, each design family's drawing a sample.

Legend: N = images, T = side of a tile in the sheet in pixels, S = side of an encoder input, K = palette entries.
"""

from __future__ import annotations

import csv
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples
from datamodules.sampling.grouping import codes
from datamodules.sources.images_in_memory import ImagesInMemory
from metric_module.errors import UserError
from metric_module.preprocessing.images import ROUNDED_AREA, resize

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
AUGMENT = Augment(flip=0.0)  # a mirrored emoji can be another emoji: arrows, hands, faces that look to one side


@dataclass(eq=False, repr=False)
class EmojiDataModule(PKDataModule):
    """1,055 emoji, each drawn by five to seven design families; 633 / 211 / 211 classes for train, val and test.

    There are two protocols: retrieval among all drawings, and retrieval across families by :attr:`groups`, which
    ignores drawings of the query's own family and of its sibling (noto and noto-v1, fluent-emoji and
    fluent-emoji-flat). Inputs are float32 ``(B, 3, S, S)`` in [-1, 1], normalised with mean and standard deviation 0.5.
    A few drawings serve for two emoji (``up-button`` and ``upwards-button``, ``cricket`` and ``cricket-game``), as
    published by their families; they are kept.

    Args:
        image_size: S. Sizes that divide 64 are area averages; others are resized bilinearly with antialiasing.
        class_turns: Probability that all images of a class in a training batch are turned or mirrored alike and form a
            new class, see :func:`datamodules.augmentation.class_symmetries.turn_classes`.

    Other arguments are those of :class:`datamodules.PKDataModule`; the images are in memory, so ``num_workers=0`` is
    fast enough.

    Raises:
        UserError: A number is out of range; in ``load``: the shipped files are missing or damaged.
    """

    classes_per_batch: int | None = 64
    _: KW_ONLY
    image_size: int = 64
    class_turns: float = 0.6
    augment: AugmentFunction | None = AUGMENT
    duplicates: str = "keep"

    @override
    def load(self) -> Samples:
        """Decode the sheet and split the classes."""
        classes, families = read_index(FOLDER)
        labels, names = codes(classes)  # (N,)
        images = read_images(FOLDER, len(labels), min(self.image_size, TILE))
        return Samples(
            fetch=ImagesInMemory(images, self.image_size, resize=ROUNDED_AREA),
            labels=labels,
            splits=self.own_split(labels, names),
            class_names=names,
            groups=torch.tensor([GROUPS[family] for family in families]),
        )


def read_index(folder: Path) -> tuple[list[str], list[str]]:
    """Read class and family of each tile of the sheet.

    Args:
        folder: Folder of ``emoji.csv``.

    Raises:
        UserError: The index is missing, has other columns, or names an unknown family.
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
    """Decode the first images of the sheet, uint8 ``(N, 3, S, S)``.

    Args:
        folder: Folder of ``emoji.png``.
        count: N.
        size: S.

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
