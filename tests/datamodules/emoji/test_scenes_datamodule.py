"""Tests of scenes of emoji and of their pixels as samples."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import EmojiDataModule, EmojiScenesDataModule
from datamodules.emoji.scenes import LEAST_SEEN, SIZES, compose, cut_out
from datamodules.emoji.scenes_datamodule import CROP, ScenePixels
from metric_module import UserError
from tests.helpers.command_line import read_images_once

cut_out_once = functools.cache(cut_out)


@pytest.fixture(autouse=True)
def decode_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.emoji.scenes_datamodule.read_images", read_images_once)
    monkeypatch.setattr("datamodules.emoji.scenes_datamodule.cut_out", cut_out_once)


def made(**settings: object) -> EmojiScenesDataModule:
    return EmojiScenesDataModule(scenes=(6, 3, 4), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> EmojiScenesDataModule:
    return made()


def source(data: EmojiScenesDataModule) -> ScenePixels:
    found = data.samples.fetch
    assert isinstance(found, ScenePixels)
    return found


def test_a_drawing_is_cut_out_along_its_edge() -> None:
    picture = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    picture[0, :, 2:6, 2:6] = 30
    picture[0, :, 3, 3] = 255  # a white eye belongs to it
    picture[0, :, 2, 2] = 250  # a pale corner does not
    mask = cut_out(picture)[0]
    assert int(mask.sum()) == 15 and bool(mask[3, 3]) and not bool(mask[2, 2])


def test_scenes_are_a_function_of_split_seed_split_and_number(data: EmojiScenesDataModule) -> None:
    torch.manual_seed(1)
    again, more = made(seed=7), EmojiScenesDataModule(scenes=(8, 3, 4))
    masks = source(data).scenes.masks
    assert torch.equal(source(again).scenes.images, source(data).scenes.images)
    assert torch.equal(source(more).scenes.masks[:6], masks[:6])
    assert torch.equal(source(more).scenes.masks[8:], masks[6:])
    assert not torch.equal(source(made(split_seed=1)).scenes.masks, masks)
    assert len({mask.numpy().tobytes() for mask in masks}) == 13


def test_instances_of_a_scene_stay_in_sight(data: EmojiScenesDataModule) -> None:
    masks = source(data).scenes.masks
    counts = masks.flatten(1).amax(dim=1)
    assert int(counts.min()) >= 2 and int(counts.max()) <= 6 and len(set(counts.tolist())) > 1
    assert int(counts.sum()) == len(source(data).scenes.drawings)
    drawings, rows = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0])
    squares = compose(drawings, torch.ones(1, 32, 32, dtype=torch.bool), rows, torch.arange(20), 64).masks
    hidden = 0
    for mask in squares:
        for size in mask.flatten().bincount()[1:].tolist():
            hidden += size < SIZES[0] ** 2
            assert size >= LEAST_SEEN * SIZES[0] ** 2
    assert hidden > 5


def test_classes_of_emoji_are_disjoint_between_splits(data: EmojiScenesDataModule) -> None:
    emoji = EmojiDataModule().samples
    scenes = source(data).scenes
    counts = scenes.masks.flatten(1).amax(dim=1).long()
    split = torch.tensor([0] * 6 + [1] * 3 + [2] * 4).repeat_interleave(counts)
    for number, name in enumerate(("train", "val", "test")):
        assert torch.isin(scenes.drawings[split == number], emoji.splits[name]).all()


def test_samples_are_pixels_of_instances(data: EmojiScenesDataModule) -> None:
    samples, scenes, where = data.samples, source(data).scenes, source(data).where
    assert samples.groups is not None
    counts = scenes.masks.flatten(1).amax(dim=1).long()
    first = counts.cumsum(0) - counts
    own = scenes.masks[where.unbind(1)].long()
    assert int(own.min()) == 1
    assert torch.equal(samples.labels, first[where[:, 0]] + own - 1)
    assert torch.equal(samples.groups, where[:, 0])
    train, test = samples.splits["train"], samples.splits["test"]
    assert set(where[train, 0].tolist()) == set(range(6)) and set(where[test, 0].tolist()) == set(range(9, 13))
    sizes = scenes.masks[:6].flatten(1)
    whole = torch.cat([row.long().bincount()[1:] for row in sizes])
    assert torch.equal(samples.labels[train].bincount(), whole.clamp(max=64))
    assert len(test) == int((scenes.masks[9:, ::2, ::2] > 0).sum())
    assert (where[train, 1] % 2).float().mean() > 0.2  # training is not on the grid


def test_a_training_batch_is_a_scene(data: EmojiScenesDataModule) -> None:
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs["images"].shape == (1, 3, 64, 64) and batch.inputs["pixels"].shape == (192, 3)
    assert len(set(source(data).where[batch.index, 0].tolist())) == 1
    assert len(set(batch.labels.tolist())) > 1
    assert torch.equal(batch.inputs["pixels"][:, 1:], source(data).where[batch.index, 1:])


def test_scenes_come_once_with_the_pixels_of_a_batch(data: EmojiScenesDataModule) -> None:
    ids = data.samples.splits["val"].flip(0)[::7]
    inputs = data.samples.fetch(ids)
    scenes = source(data).scenes
    picked = inputs["images"][inputs["pixels"][:, 0], :, inputs["pixels"][:, 1], inputs["pixels"][:, 2]]
    scene, row, column = source(data).where[ids].unbind(1)
    torch.testing.assert_close(picked, scenes.images[scene, :, row, column].float() / 127.5 - 1)
    assert len(inputs["images"]) == 3


def test_a_pixel_is_shown_within_its_surroundings(data: EmojiScenesDataModule) -> None:
    ids = [0, 1, len(data.samples.labels) - 1]
    shown = data.show(ids)
    for picture in shown:
        assert isinstance(picture, Image.Image) and picture.size == (2 * CROP, 2 * CROP)
        assert (np.asarray(picture) == (255, 0, 0)).all(axis=2).sum() >= 4  # the pixel, twice as large
    names, row = data.class_names_of(ids), int(source(data).scenes.drawings[0])
    assert names[0] == f"{EmojiDataModule().class_names_of([row])[0]} (instance 0)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenes": (1, 2)}, r"datamodule.scenes: expected three integers >= 1, got \[1, 2\]"),
        ({"scenes": (1, 0, 2)}, r"datamodule.scenes: expected three integers >= 1, got \[1, 0, 2\]"),
        ({"image_size": 32}, "datamodule.image_size: expected an integer >= 48, got 32"),
        ({"pixels_per_instance": 0}, "datamodule.pixels_per_instance: expected an integer >= 1, got 0"),
        ({"grid": 0}, "datamodule.grid: expected an integer >= 1, got 0"),
        (
            {"neighbours": {"group": 2}},
            "datamodule.neighbours: batches consist of whole scenes, which are not classes; expected null, got "
            r"\{'group': 2, 'share': 1.0, 'every': 100\}",
        ),
        ({"fold": 1}, "datamodule.fold: scenes are composed for each split and cannot be divided into folds, got 1"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EmojiScenesDataModule(**settings)  # type: ignore[arg-type]
