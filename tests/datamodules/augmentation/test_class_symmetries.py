"""Tests of turned classes: all symmetries, whole classes at a time, and new labels."""

from __future__ import annotations

import pytest
import torch

from datamodules.augmentation.class_symmetries import TURNS, turn_classes
from datamodules.emoji.datamodule import EmojiDataModule
from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.keyed_random import combine

SYMMETRIES = [
    lambda image: image,
    lambda image: image.flip(-1),
    lambda image: image.flip(-2),
    lambda image: image.rot90(2, (-2, -1)),
    lambda image: image.transpose(-2, -1),
    lambda image: image.flip(-1).transpose(-2, -1),
    lambda image: image.flip(-2).transpose(-2, -1),
    lambda image: image.rot90(2, (-2, -1)).transpose(-2, -1),
]
"""Symmetry by the last digit of a label, in base eight."""


def test_each_class_is_turned_as_its_label_says() -> None:
    labels = torch.arange(200).repeat_interleave(2)
    images = torch.rand(400, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    turned, names = turn_classes(images, labels, combine(7, labels), share=1)
    assert torch.equal(images, before)
    assert torch.equal(names // TURNS, labels)
    assert torch.equal(names[::2], names[1::2])
    assert (names % TURNS).bincount(minlength=TURNS).min() > 20
    for image, whole, name in zip(turned, before, names.tolist(), strict=True):
        assert torch.equal(image, SYMMETRIES[name % TURNS](whole))


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_no_more_than_the_share_is_turned(share: float) -> None:
    labels = torch.arange(4000)
    _, names = turn_classes(torch.zeros(4000, 1, 2, 2), labels, combine(labels), share)
    assert (names % TURNS > 0).double().mean().item() == pytest.approx(share * 7 / 8, abs=0.03)


def test_only_square_images_can_be_turned() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match=r"expected square images \[B, C, S, S\], got shape \[1, 3, 4, 5\]"):
        turn_classes(torch.zeros(1, 3, 4, 5), one, one, share=0.5)
    with pytest.raises(UserError, match=r"^class_turns: expected square images \[B, C, S, S\], got list$"):
        turn_classes(["one", "two"], one, one, 0.5)  # type: ignore[arg-type]


def test_the_emoji_are_turned_by_seed_epoch_and_class_alone() -> None:
    data = EmojiDataModule(image_size=8, augment=None)
    ids = data.samples.splits["train"][:40]
    batch = Batch(data.samples.fetch(ids), data.samples.labels[ids], ids)
    first, again, back = data.augment_batch(batch, 3), data.augment_batch(batch, 3), batch.labels.flip(0)
    assert torch.equal(first.inputs, again.inputs) and torch.equal(first.labels, again.labels)
    other_order = data.augment_batch(Batch(batch.inputs.flip(0), back, ids.flip(0)), 3)
    assert torch.equal(other_order.labels.flip(0), first.labels)
    assert not torch.equal(data.augment_batch(batch, 4).labels, first.labels)
    assert 0 < (first.labels % TURNS > 0).sum() < len(ids)
    plain = EmojiDataModule(image_size=8, augment=None, class_turns=0).augment_batch(batch, 3)
    assert plain.inputs is batch.inputs and plain.labels is batch.labels
    with pytest.raises(UserError, match=r"expected 0 <= class_turns <= 1, got 1\.5"):
        EmojiDataModule(class_turns=1.5)
