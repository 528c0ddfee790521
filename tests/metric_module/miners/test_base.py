"""Properties of every selecting miner that works with any distance: in the criterion, and in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metric_module import TripletCriterion
from metric_module.distances import SNR, Euclidean
from metric_module.keyed_random import keyed_uniform
from metric_module.miners import BatchHard, EasyPositive, Random, SelectingMiner, SemihardNearest, Triplets, Uniform
from tests.helpers.batches import LABELS, embed
from tests.helpers.blocks import small_blocks
from tests.oracles.criterion import pair

MINERS: dict[str, Callable[[], SelectingMiner]] = {
    "batch hard": BatchHard,
    "semihard nearest": SemihardNearest,
    "semihard nearest, else hardest": partial(SemihardNearest, fallback="hardest"),
    "semihard nearest, else easy": partial(SemihardNearest, fallback="nearest_easy"),
    "semihard nearest, else farthest": partial(SemihardNearest, fallback="farthest"),
    "semihard at random": partial(SemihardNearest, "random"),
    "semihard at random, else easy": partial(SemihardNearest, "random", "nearest_easy"),
    "easy positive, nearest": partial(EasyPositive, "nearest"),
    "easy positive, semihard": EasyPositive,
    "random": Random,
    "random, three each": partial(Random, 3),
}
every_miner = pytest.mark.parametrize("name", MINERS)


class Recording(SelectingMiner):
    """A miner that records the triplets that another one selects."""

    def __init__(self, miner: SelectingMiner) -> None:
        super().__init__()
        self.miner = miner
        self.named: list[tuple[int, ...]] = []

    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        found = self.miner.select(distances, positive, negative, margin, uniform)
        self.named += zip(*(part.tolist() for part in found), strict=True)
        return found


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the number of elements of the largest tensor that any operation makes."""

    seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, Tensor):
                self.seen = max(self.seen, part.numel())
        return result


def uneven() -> Tensor:
    """Classes of 1, 2, 4, 8, 12 and 20."""
    return torch.repeat_interleave(torch.arange(6), torch.tensor([1, 2, 4, 8, 12, 20]))


@every_miner
@pytest.mark.parametrize("sort_from", [6, 1000])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_block_size_changes_nothing(name: str, loss: str, sort_from: int) -> None:
    embeddings, labels = torch.nn.functional.normalize(embed(47, seed=5), dim=1), uneven()
    order = torch.randperm(47, generator=torch.Generator().manual_seed(0))
    results = []
    for budget in (1, 47 * 8 * 8 * 5, 2**26):
        leaf = embeddings.clone().requires_grad_()
        with small_blocks(memory_budget=budget, sort_from=sort_from):
            output = TripletCriterion(Euclidean(), MINERS[name](), 0.3, loss)(leaf, labels[order])
            torch.autograd.backward(output.loss)
        results.append((output.loss.detach(), leaf.grad, output.census))
    for value, gradient, census in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-14)
        assert census[:7] == results[0][2][:7]
    assert results[0][2].selected > 20
    assert results[0][2].lone_anchors == 1


@every_miner
def test_loss_and_gradient_are_those_of_the_named_triplets(name: str) -> None:
    miner = Recording(MINERS[name]())
    embeddings, labels = embed(12, seed=9), LABELS["uneven"]
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    output = TripletCriterion(SNR(), miner, 1.5, "soft", "sum")(ours, torch.tensor(labels))
    excess = [pair("SNR", theirs[a], theirs[p]) - pair("SNR", theirs[a], theirs[n]) + 1.5 for a, p, n in miner.named]
    expected = torch.nn.functional.softplus(torch.stack(excess)).sum()
    assert output.census.selected == len(miner.named) > 8
    assert (len(set(miner.named)) < len(miner.named)) == (name == "random, three each")
    torch.autograd.backward(output.loss)
    torch.autograd.backward(expected)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)


@every_miner
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], []])
def test_no_triplet_is_a_connected_zero(name: str, labels: list[int]) -> None:
    embeddings = torch.eye(3)[: len(labels)].requires_grad_()
    output = TripletCriterion(Euclidean(), MINERS[name]())(embeddings, torch.tensor(labels, dtype=torch.int64))
    output.loss.backward()
    assert output.loss == 0
    assert embeddings.grad is not None and (embeddings.grad == 0).all()
    assert output.census.lone_anchors == len(labels)


@every_miner
def test_equal_embeddings_give_valid_triplets(name: str) -> None:
    """Every distance is zero: nothing is semi-hard, and nothing is easy."""
    output = TripletCriterion(Euclidean(), MINERS[name](), 0.25)(torch.ones(47, 3), uneven())
    pairs = 2 * 1 + 4 * 3 + 8 * 7 + 12 * 11 + 20 * 19
    selected = {"batch hard": 46, "easy positive, nearest": 46, "random": pairs, "random, three each": 3 * pairs}
    assert output.census.selected == selected.get(name, pairs if name.endswith(("hardest", "farthest")) else 0)
    assert output.loss == (0.25 if output.census.selected else 0)


@every_miner
@pytest.mark.parametrize("sort_from", [0, 1000])
def test_memory_does_not_grow_with_the_number_of_positives(name: str, sort_from: int) -> None:
    anchors, width = 16, 64
    distances = torch.rand(anchors, width, generator=torch.Generator().manual_seed(0))
    positive = (torch.arange(width) < width // 2).expand(anchors, width)
    miner = MINERS[name]()
    with small_blocks(sort_from=sort_from), Largest() as mode:  # type: ignore[no-untyped-call]
        found = miner.select(distances, positive, ~positive, 0.5, partial(keyed_uniform, torch.arange(anchors)))
    assert len(found.anchor) >= anchors - 4
    # The triplets themselves and what numbers them, two indices for each, may be more than the block.
    assert 0 < mode.seen <= max(2 * anchors * width, 2 * len(found.anchor))
