"""Pixels of composed scenes as samples: each instance in a scene is a class.

Legend: S = scenes, H = side of a scene in pixels, n = foreground pixels, N = pixels used as samples, B = pixels in a
batch, I = instances, E = drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.base import PKDataModule
from datamodules.checks import check_at_least
from datamodules.emoji.datamodule import FOLDER, read_images, read_index
from datamodules.emoji.scenes import Scenes, compose, cut_out
from datamodules.sampling.dataset import Samples, Source, copy_numbers, int64_ids
from datamodules.sampling.grouping import codes
from datamodules.sampling.splits import SPLITS, split_samples
from datamodules.sources.pictures import as_pictures
from metric_module.errors import UserError
from metric_module.keyed_random import combine
from metric_module.preprocessing.arrays import scaled

TILE = 32
PIXELS = 7
CROP = 24


@dataclass(eq=False, repr=False)
class EmojiScenesDataModule(PKDataModule):
    """Scenes of three to six overlapping emoji; the task is to find the pixels that belong to the same instance.

    Emoji are class-disjoint: scenes of a split show only emoji of that split of :class:`datamodules.EmojiDataModule`. A
    sample is a pixel of an emoji, its class is the instance, its group the scene. Training draws from
    ``pixels_per_instance`` random pixels of each instance; evaluation uses every foreground pixel on a grid.

    Inputs are ``{"images": (S, 3, H, H) in [-1, 1], "pixels": (B, 3)}``: each scene of the batch once, and for each
    sample its scene (an index of ``images``), row and column.

    Args:
        scenes: Number of scenes in train, val and test.
        image_size: H.
        pixels_per_instance: Maximum number of pixels of an instance used in training.
        grid: Spacing of the evaluated pixels in rows and columns.

    Other arguments are those of :class:`datamodules.PKDataModule`, but two mean something else here:
    ``classes_per_batch`` is the number of scenes in a batch, ``samples_per_class`` the number of pixels of each scene.
    Scenes are a function of ``split_seed``.

    Raises:
        UserError: A number is out of range; in ``load``: the shipped files are missing or damaged.
    """

    classes_per_batch: int = 1
    samples_per_class: int = 192
    _: KW_ONLY
    scenes: Sequence[int] = (2000, 50, 100)
    image_size: int = 64
    pixels_per_instance: int = 64
    grid: int = 2
    eval_batch_size: int = 4096

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.scenes) != 3 or min(self.scenes) < 1:
            raise UserError(f"datamodule.scenes: expected three integers >= 1, got {list(self.scenes)}")
        check_at_least("datamodule.image_size", self.image_size, 48)
        check_at_least("datamodule.pixels_per_instance", self.pixels_per_instance, 1)
        check_at_least("datamodule.grid", self.grid, 1)
        if self.neighbours is not None:
            raise UserError(
                "datamodule.neighbours: batches consist of whole scenes, which are not classes; expected null, got "
                f"{self.neighbours}"
            )
        if self.fold is not None:
            raise UserError(
                f"datamodule.fold: scenes are composed for each split and cannot be divided into folds, got {self.fold}"
            )

    @override
    def load(self) -> Samples:
        """Compose the scenes and choose the pixels."""
        classes, _ = read_index(FOLDER)
        emoji = split_samples(*codes(classes), seed=self.split_seed)
        drawings = read_images(FOLDER, len(classes), TILE)  # (E, 3, T, T)
        inked = cut_out(drawings)  # (E, T, T)
        composed = []
        for number, (split, count) in enumerate(zip(SPLITS, self.scenes, strict=True)):
            keys = combine(self.split_seed, number, torch.arange(count))  # (S,)
            composed.append(compose(drawings, inked, emoji[split], keys, self.image_size))
        scenes = Scenes(*(torch.cat(part) for part in zip(*composed, strict=True)))
        where, labels, splits = self._pixels(scenes)
        shown = [f"{classes[row]} (instance {number})" for number, row in enumerate(scenes.drawings.tolist())]
        source = ScenePixels(scenes, where)
        return Samples(source, labels, splits, class_names=shown, groups=where[:, 0].contiguous())

    def _pixels(self, scenes: Scenes) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Choose the samples: scene, row and column ``(N, 3)``, instance ``(N,)``, and ids of each split."""
        count = scenes.masks.flatten(1).amax(dim=1).long()  # (S,), number of instances
        where = scenes.masks.nonzero()  # (n, 3)
        labels = (count.cumsum(0) - count)[where[:, 0]] + scenes.masks[where.unbind(1)].long() - 1  # (n,)
        training = where[:, 0] < self.scenes[0]  # (n,)
        gridded = (where[:, 1:] % self.grid == 0).all(dim=1)  # (n,)
        chosen = torch.where(training, self._some(labels), gridded)  # (n,)
        scene = where[chosen, 0]  # (N,)
        first_val, first_test = self.scenes[0], self.scenes[0] + self.scenes[1]
        which = (scene >= first_val).long() + (scene >= first_test).long()  # (N,)
        splits = {name: (which == number).nonzero()[:, 0] for number, name in enumerate(SPLITS)}
        return where[chosen], labels[chosen], splits

    def _some(self, labels: Tensor) -> Tensor:
        """Choose at most ``pixels_per_instance`` random pixels of each instance: bool ``(n,)``."""
        key = combine(self.split_seed, PIXELS, torch.arange(len(labels)))  # (n,)
        order = key.argsort()  # (n,)
        order = order[labels[order].argsort(stable=True)]  # by instance, in random order within each
        first = order[copy_numbers(labels[order]) < self.pixels_per_instance]
        return torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, first, True)

    @property
    @override
    def drawn_by(self) -> Tensor:
        """Scene of each pixel, so that all pixels of a batch come from few scenes."""
        assert self.samples.groups is not None
        return self.samples.groups


class ScenePixels(Source):
    """Pixels by id, with the scenes that contain them.

    Args:
        scenes: All scenes.
        where: Scene, row and column of each pixel, int64 ``(N, 3)``.
    """

    def __init__(self, scenes: Scenes, where: Tensor) -> None:
        self.scenes = scenes
        self.where = where

    @override
    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """Return scenes ``(S, 3, H, H)``, each once, and pixels ``(B, 3)`` for int64 ids ``(B,)``."""
        where = self.where[ids]  # (B, 3)
        scene, which = torch.unique(where[:, 0], return_inverse=True)  # (S,), (B,)
        images = scaled(self.scenes.images[scene])  # (S, 3, H, H)
        return {"images": images, "pixels": torch.cat([which[:, None], where[:, 1:]], dim=1)}

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """Return the surroundings of each pixel, with the pixel itself in red.

        Args:
            ids: Samples.
        """
        shown: list[Image.Image | str] = []
        for scene, row, column in self.where[int64_ids(ids)].tolist():
            picture = self.scenes.images[scene].clone()  # (3, H, H)
            picture[:, row, column] = torch.tensor([255, 0, 0], dtype=torch.uint8)
            top, left = (min(max(0, at - CROP // 2), picture.shape[-1] - CROP) for at in (row, column))
            (crop,) = as_pictures(scaled(picture[None, :, top : top + CROP, left : left + CROP]))
            shown.append(crop.resize((2 * CROP, 2 * CROP), Image.Resampling.NEAREST))
        return shown
