"""Tests of grouping by class: equal to a stable sort, for any integers."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.sampling.grouping import group_by_class, without_short
from datamodules.sampling.pk_sampler import PKSampler
from metric_module.errors import UserError

wide = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 9)


@settings(deadline=None)
@given(st.lists(wide, min_size=1, max_size=40))
def test_groups_are_those_of_a_stable_sort(labels: list[int]) -> None:
    found = group_by_class(np.array(labels, np.int64))
    assert found.order.tolist() == np.argsort(np.array(labels, np.int64), kind="stable").tolist()
    assert found.labels.tolist() == sorted(set(labels))
    assert found.sizes.tolist() == [labels.count(label) for label in found.labels.tolist()]
    assert found.starts.tolist() == [sum(found.sizes[:i]) for i in range(len(found.sizes))]


def test_labels_beyond_float_precision_stay_apart() -> None:
    assert group_by_class([2**53, 2**53 + 1, 2**53]).sizes.tolist() == [2, 1]
    assert group_by_class(np.array([2**64 - 1, 0, 2**64 - 1], np.uint64)).labels.tolist() == [0, 2**64 - 1]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_tensors_of_any_integer_type(dtype: torch.dtype) -> None:
    assert group_by_class(torch.tensor([5, 3, 5], dtype=dtype)).order.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3), r"got float32 of shape \(3,\)"),
        (torch.zeros(3, dtype=torch.bool), r"got bool of shape \(3,\)"),
        (torch.zeros(2, 2, dtype=torch.int64), r"got int64 of shape \(2, 2\)"),
        (np.zeros(0, np.int64), r"N > 0, got int64 of shape \(0,\)"),
        (["cat", "dog"], r"got <U3 of shape \(2,\)"),
    ],
)
def test_bad_labels(labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        group_by_class(labels)  # type: ignore[arg-type]


def test_short_classes() -> None:
    classes = group_by_class([7, 7, 7, 8, 9, 9])
    assert without_short(classes, 3, "repeat") is classes
    assert without_short(classes, 1, "error") is classes
    kept = without_short(classes, 2, "drop")
    assert (kept.labels.tolist(), kept.starts.tolist(), kept.sizes.tolist()) == ([7, 9], [0, 4], [3, 2])
    with pytest.raises(UserError, match=r"2 classes .* samples_per_class=3 .*: 8 \(1\), 9 \(2\); allow it with"):
        without_short(classes, 3, "error")
    with pytest.raises(UserError, match=r"20 \(1\) and 5 more; allow"):
        without_short(group_by_class(range(1, 26)), 2, "error")
    with pytest.raises(UserError, match="unknown short_classes 'skip': expected one of repeat, drop, error"):
        without_short(classes, 3, "skip")


def test_ten_million_samples_in_a_second_and_200_megabytes() -> None:
    labels = (np.arange(10_000_000, dtype=np.int64) * 7_919_999 % 1_000_003).astype(np.int32)

    def seconds() -> float:
        start = time.process_time()
        PKSampler(labels, 32, 4)
        return time.process_time() - start

    assert any(seconds() < 1 for _ in range(3)), "a busy machine may slow one attempt down"
    tracemalloc.start()
    sampler = PKSampler(labels, 32, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 40e6 < peak < 200e6
    assert len(sampler) == 10_000_000
