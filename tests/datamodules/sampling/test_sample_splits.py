"""Tests of splits within classes: disjoint, complete, of the right size in each class, and seeded."""

from __future__ import annotations

import pytest
import torch

from datamodules.sampling.sample_splits import hold_out_within, split_within
from metric_module.errors import UserError


def test_samples_of_each_class_are_divided() -> None:
    labels = torch.tensor([3] * 10 + [0] * 7 + [3] * 10 + [5])
    splits = split_within(labels, seed=1, fractions=(0.5, 0.2, 0.3))
    assert torch.equal(torch.cat([*splits.values()]).sort().values, torch.arange(28))
    counts = {split: labels[ids].bincount(minlength=6).tolist() for split, ids in splits.items()}
    assert counts == {"train": [4, 0, 0, 10, 0, 1], "val": [1, 0, 0, 4, 0, 0], "test": [2, 0, 0, 6, 0, 0]}
    again, other = (split_within(labels, seed=seed, fractions=(0.5, 0.2, 0.3)) for seed in (1, 2))
    assert torch.equal(again["test"], splits["test"]) and not torch.equal(other["test"], splits["test"])


def test_a_share_of_each_class_is_held_out() -> None:
    labels = torch.tensor([3] * 10 + [0] * 7 + [3] * 10 + [5] * 2)
    held = hold_out_within(labels, 0.3, seed=1)
    assert labels[held].bincount(minlength=6).tolist() == [2, 0, 0, 6, 0, 1]
    again, other = (hold_out_within(labels, 0.3, seed=seed) for seed in (1, 2))
    assert torch.equal(again, held) and not torch.equal(other, held)


@pytest.mark.parametrize(("fraction", "takes"), [(0.1, 0), (0.9, 3)])
def test_a_share_leaves_a_sample_of_each_class(fraction: float, takes: int) -> None:
    message = rf"datamodule.val_fraction={fraction}: takes {takes} of a class of 3 samples: expected at least 1 in val"
    with pytest.raises(UserError, match=message):
        hold_out_within(torch.tensor([0] * 8 + [1] * 3), fraction)
