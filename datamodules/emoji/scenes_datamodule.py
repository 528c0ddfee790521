"""Pixels of composed scenes: each instance of a scene is a class, each of its pixels a sample.

Legend: S scenes of H x H pixels, N pixels that are samples, B pixels of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.base import PKDataModule
from datamodules.emoji.datamodule import FOLDER, read_images, read_index
from datamodules.emoji.scenes import Scenes, compose, cut_out
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.grouping import codes
from datamodules.sampling.splits import SPLITS, split_samples
from datamodules.sources.pictures import as_pictures
from metric_module.errors import UserError
from metric_module.keyed_random import combine

TILE = 32
PIXELS = 7
CROP = 24


class PixelTable(NamedTuple):
    """The pixels that are samples.

    Attributes:
        where: Scene, row and column, int64 ``(N, 3)``.
        labels: Instance, unique over the data set, int64 ``(N,)``.
    """

    where: Tensor
    labels: Tensor


@dataclass(eq=False, repr=False)
class EmojiScenesDataModule(PKDataModule):
    """Scenes of three to six emoji that touch and overlap; the task is to tell which pixels belong together.

    Emoji are class-disjoint: scenes of a split show emoji of that split of :class:`datamodules.EmojiDataModule` alone.
    A sample is a pixel of an emoji, its class is the instance, its group the scene. Training draws from
    ``pixels_per_instance`` random pixels of each instance, evaluation looks at every foreground pixel of a grid.

    Inputs are ``{"images": (S, 3, H, H) in [-1, 1], "pixels": (B, 3)}``: the scenes of the batch, each once, and for
    each sample which of these scenes, which row and which column it is.

    Args:
        scenes: How many of train, val and test.
        image_size: H.
        pixels_per_instance: Most pixels of an instance that training sees.
        grid: Rows and columns between two pixels that evaluation looks at.

    Other arguments are those of :class:`datamodules.PKDataModule`, with two meanings of their own:
    ``classes_per_batch`` is the number of scenes in a batch, ``samples_per_class`` the number of pixels of each.
    Scenes are a function of ``split_seed``.

    Raises:
        UserError: A number is out of range; later, if the shipped files are missing or damaged.
    """

    classes_per_batch: int = 1
    samples_per_class: int = 192
    _: KW_ONLY
    scenes: Sequence[int] = (2000, 50, 100)
    image_size: int = 64
    pixels_per_instance: int = 64
    grid: int = 2

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.scenes) != 3 or min(self.scenes) < 1:
            raise UserError(f"datamodule.scenes: expected three integers >= 1, got {list(self.scenes)}")
        if self.image_size < 48:
            raise UserError(f"datamodule.image_size: expected an integer >= 48, got {self.image_size}")
        for name, value in (("pixels_per_instance", self.pixels_per_instance), ("grid", self.grid)):
            if value < 1:
                raise UserError(f"datamodule.{name}: expected an integer >= 1, got {value}")
        if self.fold is not None:
            raise UserError(f"datamodule.fold: scenes are composed for each split and have no folds, got {self.fold}")

    @override
    def load(self) -> Samples:
        """Compose the scenes, and choose the pixels."""
        classes, _ = read_index(FOLDER)
        emoji = split_samples(*codes(classes), seed=self.split_seed)
        drawings = read_images(FOLDER, len(classes), TILE)  # (E, 3, T, T)
        inked = cut_out(drawings)  # (E, T, T)
        parts = []
        for number, (split, count) in enumerate(zip(SPLITS, self.scenes, strict=True)):
            keys = combine(self.split_seed, number, torch.arange(count))  # (S,)
            parts.append(compose(drawings, inked, emoji[split], keys, self.image_size))
        scenes = Scenes(*(torch.cat(part) for part in zip(*parts, strict=True)))
        table, splits = self._pixels(scenes)
        source = ScenePixels(scenes, table.where)
        shown = [f"{classes[row]} (instance {number})" for number, row in enumerate(scenes.drawings.tolist())]
        return Samples(source, table.labels, splits, class_names=shown, groups=table.where[:, 0].contiguous())

    def _pixels(self, scenes: Scenes) -> tuple[PixelTable, dict[str, Tensor]]:
        """The samples, and the ids of each split."""
        count = scenes.masks.flatten(1).amax(dim=1).long()  # (S,), instances of each scene
        where = scenes.masks.nonzero()  # (n, 3)
        labels = (count.cumsum(0) - count)[where[:, 0]] + scenes.masks[where.unbind(1)].long() - 1  # (n,)
        training = where[:, 0] < self.scenes[0]  # (n,)
        gridded = (where[:, 1:] % self.grid == 0).all(dim=1)  # (n,)
        chosen = torch.where(training, self._some(labels), gridded)  # (n,)
        scene = where[chosen, 0]  # (N,)
        first_val, first_test = self.scenes[0], self.scenes[0] + self.scenes[1]
        which = (scene >= first_val).long() + (scene >= first_test).long()  # (N,)
        splits = {name: (which == number).nonzero()[:, 0] for number, name in enumerate(SPLITS)}
        return PixelTable(where[chosen], labels[chosen]), splits

    def _some(self, labels: Tensor) -> Tensor:
        """Which pixels ``(n,)`` are among the first of their instance, in random order: bool ``(n,)``."""
        key = combine(self.split_seed, PIXELS, torch.arange(len(labels)))  # (n,)
        order = key.argsort()  # (n,)
        order = order[labels[order].argsort(stable=True)]  # by instance, in random order within
        size = labels.bincount()  # (I,)
        turn = torch.arange(len(labels)) - (size.cumsum(0) - size)[labels[order]]  # (n,)
        return torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, order[turn < self.pixels_per_instance], True)

    @property
    @override
    def drawn_by(self) -> Tensor:
        """Scenes, so that all pixels of a batch are of a few of them."""
        assert self.samples.groups is not None
        return self.samples.groups


class ScenePixels(Source):
    """Pixels by id, with the scenes that they are of.

    Args:
        scenes: All of them.
        where: Scene, row and column of each pixel, int64 ``(N, 3)``.
    """

    def __init__(self, scenes: Scenes, where: Tensor) -> None:
        self.scenes = scenes
        self.where = where

    @override
    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """Scenes ``(S, 3, H, H)``, each once, and pixels ``(B, 3)`` of them, of int64 ids ``(B,)``."""
        where = self.where[ids]  # (B, 3)
        scene, which = torch.unique(where[:, 0], return_inverse=True)  # (S,), (B,)
        images = self.scenes.images[scene].float().div_(127.5).sub_(1)  # (S, 3, H, H)
        return {"images": images, "pixels": torch.cat([which[:, None], where[:, 1:]], dim=1)}

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The surroundings of each pixel, which is the middle one, in red."""
        shown: list[Image.Image | str] = []
        for scene, row, column in self.where[torch.tensor(list(ids), dtype=torch.int64)].tolist():
            picture = self.scenes.images[scene].clone()  # (3, H, H)
            picture[:, row, column] = torch.tensor([255, 0, 0], dtype=torch.uint8)
            top, left = (min(max(0, at - CROP // 2), picture.shape[-1] - CROP) for at in (row, column))
            crop = picture[None, :, top : top + CROP, left : left + CROP].float().div(127.5).sub(1)
            shown += [seen.resize((2 * CROP, 2 * CROP), Image.Resampling.NEAREST) for seen in as_pictures(crop)]
        return shown
