"""Both searches for negatives, compared with loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_module.functional import window_limit
from metric_module.miners.search import ScanSearch, Search, SortSearch, nearest, place
from tests.oracles.miners import columns, random_block, random_draws

KINDS: list[type[Search]] = [ScanSearch, SortSearch]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), margin=st.sampled_from([0.25, 0.6, 3.0]))
def test_spans_hold_what_they_should(kind: type[Search], seed: int, margin: float) -> None:
    distances, _, negative = random_block(seed)
    low = torch.randint(-1, 9, (12, 3), generator=torch.Generator().manual_seed(seed)).double() / 4
    draws = random_draws(seed, 12, 3)
    search = kind(distances.masked_fill(~negative, 2 * window_limit(distances.dtype)))
    value, column = search.beyond(low)
    drawn = search.drawn(low, low + margin, draws)
    seen = set()
    for a in range(12):
        for k in range(3):
            edge = low[a, k].item()
            farther = [m for m in columns(negative, a) if distances[a, m] > edge]
            inside = [m for m in farther if distances[a, m] <= edge + margin]
            assert (value[a, k] < window_limit(value.dtype)) == bool(farther)
            if farther:
                assert column[a, k] == min(farther, key=lambda m: distances[a, m].item())
                assert value[a, k] == distances[a, column[a, k]]
            assert drawn.valid[a, k] == bool(inside)
            if inside:
                order = sorted(inside, key=lambda m: distances[a, m].item()) if kind is SortSearch else inside
                assert drawn.column[a, k] == order[int(draws[a, k].item() * len(inside))]
            seen.add((bool(farther), bool(inside)))
    assert len(seen) > 1, "mixed"


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_number_below_one_stays_inside(kind: type[Search]) -> None:
    """A draw that rounds up to one in float32 is included."""
    for width in (1, 3, 7, 1000):
        search = kind(torch.linspace(1, 2, width)[None])
        last = torch.tensor([[1 - 2**-53]], dtype=torch.float64)
        for draw in (last, last.float()):
            found = search.drawn(torch.tensor([[0.0]]), torch.tensor([[5.0]]), draw)
            assert found.valid.all() and found.column.item() == width - 1


def test_place_covers_every_number_alike() -> None:
    numbers = torch.arange(1000, dtype=torch.float64) / 1000
    assert place(numbers, torch.tensor(4)).bincount().tolist() == [250] * 4


def test_nearest_of_none() -> None:
    far = 2 * window_limit(torch.float32)
    values = torch.tensor([[0.5, far], [far, far]])
    found = nearest(values)
    assert found.valid[:, 0].tolist() == [True, False]
    assert found.column[0] == 0
