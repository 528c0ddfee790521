"""One semi-hard negative for each positive pair, compared with a loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import UserError
from metric_module.miners import SemihardNearest
from tests.helpers.blocks import small_blocks
from tests.oracles import miners as oracle
from tests.oracles.miners import Triple, random_block, random_draws

FALLBACKS = ["skip", "hardest", "nearest_easy", "farthest"]


def chosen(miner: SemihardNearest, block: tuple[Tensor, Tensor, Tensor], margin: float, draws: Tensor) -> list[Triple]:
    found = miner.select(*block, margin, lambda n: draws[:, :n])
    return list(zip(*(part.tolist() for part in found), strict=True))


@pytest.mark.parametrize("sort_from", [0, 4, 1000])
@pytest.mark.parametrize("pick", ["nearest", "random"])
@pytest.mark.parametrize("fallback", FALLBACKS)
def test_equals_a_loop_over_pairs(pick: str, fallback: str, sort_from: int) -> None:
    counts = []
    for seed in range(12):
        block = random_block(seed, levels=[3, 9, 40][seed % 3])
        draws = random_draws(seed, 12, 17)
        margin = [0.25, 0.6][seed % 2]
        many = block[1].sum(dim=1) > sort_from
        expected = []
        for by_distance, rows in ((False, ~many), (True, many)):
            masks = (block[1] & rows[:, None], block[2] & rows[:, None])
            expected += oracle.semihard_nearest(block[0], *masks, margin, pick, fallback, draws, by_distance)
        with small_blocks(sort_from=sort_from):
            found = chosen(SemihardNearest(pick, fallback), block, margin, draws)
        assert sorted(found) == sorted(expected)
        counts.append((len(expected), int((block[1] & block[2].any(dim=1, keepdim=True)).sum())))
    assert all(0 < number <= pairs for number, pairs in counts)
    if fallback in {"skip", "nearest_easy"}:
        assert any(number < pairs for number, pairs in counts), "some pair must get nothing"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    margin=st.floats(0.01, 3),
    pick=st.sampled_from(["nearest", "random"]),
    fallback=st.sampled_from(FALLBACKS),
)
def test_the_window_is_obeyed(seed: int, margin: float, pick: str, fallback: str) -> None:
    """Triplets are valid, at most one for each pair, and semi-hard unless the fallback allows another."""
    distances, positive, negative = block = random_block(seed)
    found = chosen(SemihardNearest(pick, fallback), block, margin, random_draws(seed, 12, 17))
    assert len({(a, p) for a, p, _ in found}) == len(found)
    for a, p, n in found:
        d = distances[a]
        assert positive[a, p] and negative[a, n]
        window = negative[a] & (d > d[p]) & (d <= d[p] + margin)
        if window.any():
            assert window[n]
        elif fallback == "hardest":
            assert d[n] == d[negative[a]].min()
        elif fallback == "farthest":
            assert d[n] == d[negative[a]].max()
        else:
            assert fallback == "nearest_easy"
            assert d[n] == d[negative[a] & (d > d[p] + margin)].min()
    pairs = int((positive & negative.any(dim=1, keepdim=True)).sum())
    assert fallback not in {"hardest", "farthest"} or len(found) == pairs


def test_a_tie_with_the_positive_is_hard() -> None:
    block = torch.tensor([[0.5, 0.5, 0.75]]), torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]])
    assert chosen(SemihardNearest(), block, 0.25, torch.zeros(1, 1)) == [(0, 0, 2)]
    assert chosen(SemihardNearest(), block, 0.125, torch.zeros(1, 1)) == []
    assert chosen(SemihardNearest(fallback="hardest"), block, 0.125, torch.zeros(1, 1)) == [(0, 0, 1)]
    assert chosen(SemihardNearest(fallback="nearest_easy"), block, 0.125, torch.zeros(1, 1)) == [(0, 0, 2)]
    assert chosen(SemihardNearest(fallback="farthest"), block, 0.125, torch.zeros(1, 1)) == [(0, 0, 2)]


@pytest.mark.parametrize("sort_from", [0, 1000])
def test_random_draws_all_semihard_alike(sort_from: int) -> None:
    anchors = 8000
    distances = torch.tensor([[0.3, 0.2, 0.4, 0.35, 0.6, 0.5, 0.31]]).expand(anchors, 7)
    positive = (torch.arange(7) == 0).expand(anchors, 7)
    draws = random_draws(0, anchors, 1)
    with small_blocks(sort_from=sort_from):
        found = chosen(SemihardNearest("random"), (distances, positive, ~positive), 0.2, draws)
    frequency = torch.bincount(torch.tensor(found)[:, 2], minlength=7) / anchors
    expected = torch.tensor([0, 0, 1, 1, 0, 1, 1]) / 4
    assert (frequency - expected).abs().max() < 4 * math.sqrt(0.25 * 0.75 / anchors)
    assert frequency[[0, 1, 4]].sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pick": "median"}, "semihard nearest: pick: expected one of nearest, random, got 'median'"),
        (
            {"fallback": "easy"},
            "semihard nearest: fallback: expected one of skip, hardest, nearest_easy, farthest, got 'easy'",
        ),
    ],
)
def test_refuses_what_it_does_not_know(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SemihardNearest(**arguments)
