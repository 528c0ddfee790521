"""Tests of labelled samples as batches, and of checks of bad data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.sampling.dataset import SampleDataset, Samples, copy_numbers
from metric_module.errors import UserError

LABELS = torch.tensor([5, 5, 6, 6, 7, 7])
SPLITS = {"train": torch.tensor([0, 1]), "val": torch.tensor([2, 3]), "test": torch.tensor([4, 5])}


def samples(**changes: Any) -> Samples:
    """Make a small data set whose inputs are the ids."""
    return Samples(lambda ids: ids.float(), LABELS, SPLITS, groups=LABELS)._replace(**changes)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12))
def test_copy_numbers_count_the_equal_ids_before(ids: list[int]) -> None:
    expected = [ids[:i].count(number) for i, number in enumerate(ids)]
    assert copy_numbers(torch.tensor(ids, dtype=torch.int64)).tolist() == expected


def test_batches_of_a_split() -> None:
    samples().check()
    dataset = SampleDataset(samples(), torch.tensor([1, 4, 2]))
    assert len(dataset) == 3
    batch = dataset.__getitems__([2, 0])
    assert [part.tolist() for part in batch] == [[2.0, 1.0], [6, 5], [2, 1]]
    assert [part.tolist() for part in dataset[1]] == [[4.0], [7], [4]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS.float()}, r"labels as an int64 tensor of shape \(N,\), got torch\.float32 of shape \(6,\)"),
        ({"labels": LABELS[None]}, r"labels as .* got torch\.int64 of shape \(1, 6\)"),
        ({"groups": LABELS[:4]}, r"groups as an int64 tensor of shape \(6,\), got torch\.int64 of shape \(4,\)"),
        ({"queries": LABELS}, r"queries as a bool tensor of shape \(6,\), got torch\.int64 of shape \(6,\)"),
        ({"splits": {**SPLITS, "val": torch.tensor([], dtype=torch.int64)}}, "splits without samples: val$"),
        ({"splits": {"train": SPLITS["train"]}}, "splits without samples: val, test$"),
        ({"splits": {**SPLITS, "val": torch.tensor([5, 2, 1])}}, "in more than one split, by id: 1, 5$"),
        (
            {"splits": dict.fromkeys(SPLITS, torch.arange(30))},
            "in more than one split, by id: 0, 1, .*, 19 and 10 more$",
        ),
    ],
)
def test_bad_data_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        samples(**changes).check()


def test_samples_outside_of_all_splits_are_allowed() -> None:
    used = {"train": torch.tensor([5]), "val": torch.tensor([0]), "test": torch.tensor([3])}
    samples(splits={**used, "spare": torch.zeros(0, dtype=torch.int64)}).check()
