"""Examples of mined triplets: they are among the triplets that the criterion mines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.criterion.examples import CATEGORIES, categories, named_triplets
from metric_module.criterion.inputs import MiningInput
from metric_module.distances import Euclidean
from metric_module.miners import (
    All,
    BatchHard,
    DistanceWeighted,
    Easy,
    Hard,
    Random,
    Scheduled,
    SelectingMiner,
    Semihard,
    Triplets,
)

MARGIN = 0.3


def batch(classes: int = 6, each: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(each)
    embeddings = torch.nn.functional.normalize(torch.randn(len(labels), 5, generator=generator), dim=1)
    return embeddings, labels


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("miner", "kinds"), [(All(), CATEGORIES), (Semihard(), ["semi-hard"]), (Hard(), ["hard"]), (Easy(), ["easy"])]
)
def test_triplets_of_a_window_are_in_it(miner: Any, kinds: list[str], seed: int) -> None:
    embeddings, labels = batch(seed=seed)
    criterion = TripletCriterion(Euclidean(), miner, margin=MARGIN, seed=seed)
    named = named_triplets(criterion, MiningInput(embeddings, labels), limit=24)
    distances = torch.cdist(embeddings.double(), embeddings.double())
    assert 8 < len(named.anchor) <= 24
    assert len(set(named.anchor.tolist())) == len(named.anchor)
    assert bool((labels[named.anchor] == labels[named.positive]).all()) and bool((named.anchor != named.positive).all())
    assert bool((labels[named.anchor] != labels[named.negative]).all())
    torch.testing.assert_close(named.d_ap.double(), distances[named.anchor, named.positive], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(named.d_an.double(), distances[named.anchor, named.negative], atol=1e-6, rtol=1e-6)
    assert set(categories(named.d_ap, named.d_an, MARGIN)) == set(kinds)


class Spy(SelectingMiner):
    """A miner that records the triplets that another one selects."""

    def __init__(self, inner: SelectingMiner) -> None:
        super().__init__()
        self.inner, self.seen = inner, set[tuple[int, int, int]]()

    def select(self, distances: Any, positive: Any, negative: Any, margin: Any, uniform: Any) -> Triplets:
        found = self.inner.select(distances, positive, negative, margin, uniform)
        self.seen |= set(zip(*(part.tolist() for part in found), strict=True))
        return found


@pytest.mark.parametrize("inner", [BatchHard(), Random(per_pair=2), DistanceWeighted()])
def test_a_selecting_miner_shows_what_the_call_mines(inner: SelectingMiner) -> None:
    embeddings, labels = batch()
    spy = Spy(inner)
    criterion = TripletCriterion(Euclidean(), spy, margin=MARGIN)
    criterion.step += 3
    named = named_triplets(criterion, MiningInput(embeddings, labels))
    shown = set(zip(*(part.tolist() for part in named[:3]), strict=True))
    spy.seen.clear()
    criterion(embeddings, labels)
    assert len(shown) == 8
    assert shown <= spy.seen
    spy.seen.clear()
    criterion(embeddings, labels)
    if not isinstance(inner, BatchHard):
        assert not shown <= spy.seen, "the next step mines others"


def test_references_and_ids() -> None:
    """Anchors 4 to 7 of a batch of all ranks, followed by a memory that holds anchor 4 once more."""
    embeddings, labels = batch(classes=3)
    reference, classes = torch.cat([embeddings, embeddings[4:5]]), torch.cat([labels, labels[4:5]])
    ids = torch.cat([torch.arange(100, 112), torch.tensor([104])])
    own = slice(4, 8)
    criterion = TripletCriterion(Euclidean(), All(), margin=MARGIN)
    given = MiningInput(embeddings[own], labels[own], reference, classes, ids[own], ids, first=4)
    named = named_triplets(criterion, given)
    assert named.anchor.tolist() == [0, 1, 2, 3]
    for anchor, positive, negative in zip(*(part.tolist() for part in named[:3]), strict=True):
        assert ids[positive] != ids[4 + anchor] and classes[positive] == 1 != classes[negative]


def test_the_same_again_another_at_the_next_step_and_no_global_draw() -> None:
    embeddings, labels = batch()
    criterion = TripletCriterion(Euclidean(), Scheduled([All(), Hard()], starts=[0, 5]), margin=MARGIN)
    state = torch.get_rng_state()
    first, again = (named_triplets(criterion, MiningInput(embeddings, labels)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    criterion.step += 1
    assert not torch.equal(named_triplets(criterion, MiningInput(embeddings, labels)).anchor, first.anchor)
    assert torch.equal(torch.get_rng_state(), state)


def test_none_to_name() -> None:
    criterion = TripletCriterion(Euclidean(), All(), margin=MARGIN)
    named = named_triplets(criterion, MiningInput(torch.randn(4, 3), torch.arange(4)))
    assert [len(part) for part in named] == [0] * 5


def test_a_large_batch_is_looked_at_in_part() -> None:
    embeddings, labels = batch(classes=300, each=2)
    named = named_triplets(
        TripletCriterion(Euclidean(), All(), margin=MARGIN), MiningInput(embeddings, labels), limit=1000
    )
    assert len(named.anchor) == 200  # every third
    assert bool((named.anchor % 3 == 0).all())
