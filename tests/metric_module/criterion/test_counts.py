"""Both counters, compared with counting one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.criterion import counts
from metric_module.criterion.counts import SlotCounter, SortedCounter
from metric_module.distances import Euclidean
from metric_module.miners import All, Easy, Hard, Semihard
from metric_module.miners.positives import Slots
from tests.helpers.batches import embed
from tests.helpers.blocks import small_blocks


def brute(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Counts ``(A, K)``, and the number of spans that contain each value ``(A, M)``."""
    inside = (values[:, None] > low[..., None]) & (values[:, None] <= high[..., None])  # (A, K, M)
    return inside.sum(dim=2).double(), inside.sum(dim=1).double()


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(1, 6),
    columns=st.integers(1, 9),
    open_end=st.booleans(),
)
def test_counts(data: st.DataObject, rows: int, columns: int, open_end: bool) -> None:
    whole = st.lists(st.integers(0, 6), min_size=rows * columns, max_size=rows * columns)
    values = torch.tensor(data.draw(whole)).view(rows, columns).double()  # many ties
    number = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)))
    width = int(number.max())
    valid = torch.arange(width) < number[:, None]
    edges = torch.tensor(data.draw(st.lists(st.integers(-1, 7), min_size=2 * rows * width, max_size=2 * rows * width)))
    low, high = (
        part.masked_fill(~valid, -torch.inf) for part in edges.view(2, rows, width).double().sort(dim=0).values
    )
    if open_end:
        low = torch.full_like(high, -torch.inf)
    count, cover = brute(values, low, high)
    below, _ = brute(values, torch.full_like(low, -torch.inf), low)
    slots = Slots(torch.zeros(rows, width, dtype=torch.int64), valid, number.numpy())
    for counter in (SlotCounter(values, slots), SortedCounter(values)):
        span = counter.between(None if open_end else low, high)
        assert torch.equal(span.number, count)
        assert torch.equal(-span.cover, cover)
        assert torch.equal(-span.total, (cover * values).sum(dim=1))
        assert torch.equal(counter.at_most(low), below)


def test_the_cheaper_way_is_taken() -> None:
    values = torch.rand(3, 200)
    for number, kind in ((2, SlotCounter), (100, SortedCounter)):
        slots = Slots(
            torch.zeros(3, number, dtype=torch.int64), torch.ones(3, number, dtype=torch.bool), np.full(3, number)
        )
        assert type(counts.counter_of(values, slots)) is kind


@pytest.mark.parametrize("miner", [All, Easy, Semihard, Hard])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_sorting_changes_nothing(miner: type, loss: str) -> None:
    labels = torch.arange(60) % 3
    results = []
    for start in (0, 10**9):
        leaf = embed(60, seed=2).requires_grad_()
        with small_blocks(sort_from=start):
            output = TripletCriterion(Euclidean(), miner(), 0.7, loss, "sum")(leaf, labels)
            torch.autograd.backward(output.loss)
        results.append((output, leaf.grad))
    (first, first_gradient), (second, second_gradient) = results
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(first_gradient, second_gradient, rtol=1e-12, atol=1e-12)
    assert first.census[:7] == second.census[:7]
    assert first.census.active > 0 or (miner is Easy and loss == "hinge")
