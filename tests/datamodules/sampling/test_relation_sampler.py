"""Tests of the sampler of relations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from datamodules import PairSampler
from metric_module import UserError
from metric_module.relations import Links

_DRAW = torch.Generator().manual_seed(0)
LIKES = Links.of(torch.randint(20, (150,), generator=_DRAW), torch.randint(60, (150,), generator=_DRAW), queries=20)
ANCHORS = (LIKES.sizes > 0).nonzero()[:, 0]


def sampler(size: int = 6, k: int = 2, extra: int | None = 5, candidates: int = 60, **settings: object) -> PairSampler:
    return PairSampler(ANCHORS, LIKES, torch.arange(candidates), size, k, extra, **settings)  # type: ignore[arg-type]


def test_every_query_once_an_epoch_and_every_positive_in_turn() -> None:
    one = sampler(k=2, extra=0)
    assert len(one) == -(-len(ANCHORS) // 6)
    most = int(LIKES.sizes.max())
    brought: dict[int, Counter[int]] = {int(query): Counter() for query in ANCHORS}
    for epoch in range(-(-most // 2)):
        queries = torch.cat([one.draw(epoch * len(one) + step).queries for step in range(len(one))])
        assert sorted(queries[: len(ANCHORS)].tolist()) == ANCHORS.tolist()
        for query in ANCHORS.tolist():
            brought[query].update(one._turn(torch.tensor([query]), epoch)[0].columns.tolist())
    for query, found in brought.items():
        assert set(found) == set(LIKES.list_of(query).tolist())
    first, second = (one.draw(number * len(one)).queries for number in (0, 1))
    assert not torch.equal(first, second), "another order in each epoch"


def test_consecutive_positives_end_at_each_place_in_turn() -> None:
    one, other = (sampler(k=3, extra=0, seed=seed, consecutive=True) for seed in (0, 1))
    ends: dict[int, list[int]] = {int(query): [] for query in ANCHORS}
    short = 0
    for epoch in range(2 * int(LIKES.sizes.max())):
        drawn, past = one._turn(ANCHORS, epoch)
        assert past is not None
        for row, query in enumerate(ANCHORS.tolist()):
            own, end = LIKES.list_of(query).tolist(), int(past[row]) + len(drawn.list_of(row))
            assert drawn.list_of(row).tolist() == own[int(past[row]) : end]
            assert len(drawn.list_of(row)) == min(3, end)
            ends[query].append(end)
            short += end < 3
    assert short > 0
    for query, found in ends.items():
        size = len(LIKES.list_of(query))
        assert sorted(found[:size]) == sorted(found[size : 2 * size]) == list(range(1, size + 1))
    assert not torch.equal(one._turn(ANCHORS, 0)[0].columns, other._turn(ANCHORS, 0)[0].columns)


def test_references_are_the_positives_and_some_more() -> None:
    drawn, alone = sampler().draw(3), sampler(extra=0).draw(3)
    assert torch.equal(drawn.together, torch.unique(drawn.together))
    assert torch.equal(drawn.references, drawn.together)
    assert 0 < len(drawn.together) - len(alone.together) <= 5
    assert LIKES.mask(drawn.queries, alone.together).any(dim=1).all(), "each query has one"
    assert torch.equal(sampler(extra=None).draw(0).together, torch.arange(60))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batch_of_one(ranks: int) -> None:
    for number in (0, 1, 7):
        whole = sampler().draw(number)
        torch.rand(3)  # no global random state
        parts = [sampler(rank=rank, world_size=ranks).draw(number) for rank in range(ranks)]
        assert torch.equal(torch.cat([part.queries for part in parts]), whole.queries)
        assert torch.equal(torch.cat([part.references for part in parts]), whole.together)
        assert all(torch.equal(part.together, whole.together) for part in parts)
        assert torch.equal(torch.cat([part.positives.columns for part in parts]), whole.positives.columns)
        alone = [sampler(rank=rank, world_size=ranks, gather=False).draw(number) for rank in range(ranks)]
        assert all(torch.equal(part.references, part.together) for part in alone)
        assert torch.equal(torch.unique(torch.cat([part.together for part in alone])), whole.together)


def test_another_seed_is_another_order() -> None:
    def queries(seed: int) -> Tensor:
        return sampler(seed=seed).draw(0).queries

    assert torch.equal(queries(1), queries(1))
    assert not torch.equal(queries(1), queries(2))


def test_going_on_within_an_epoch() -> None:
    one = sampler()
    one.start_at(2, 1)
    assert list(one) == list(range(2 * len(one) + 1, 3 * len(one)))
    one.set_epoch(3)
    assert list(one) == list(range(3 * len(one), 4 * len(one)))


def test_arguments_out_of_range() -> None:
    for settings, message in (
        ({"size": 0}, r"queries_per_batch: expected an integer >= 1, got 0"),
        ({"k": 0}, r"positives_per_query: expected an integer >= 1, got 0"),
        ({"extra": -1}, r"random_references: expected an integer >= 0, got -1"),
        ({"extra": 61}, r"random_references: expected at most 60 references, got 61"),
        ({"size": 21}, rf"queries_per_batch: expected at most the {len(ANCHORS)} training queries, got 21"),
        ({"world_size": 4}, r"queries_per_batch: expected a multiple of 4 processes, for example 4, got 6"),
    ):
        with pytest.raises(UserError, match=f"^datamodule.{message}$"):
            sampler(**settings)
    with pytest.raises(UserError, match=r"^expected an epoch >= 0, got -1$"):
        sampler().set_epoch(-1)
