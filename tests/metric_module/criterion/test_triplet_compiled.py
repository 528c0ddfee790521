"""A compiled criterion computes what the criterion computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.functional import unit
from metric_module.miners import BatchHard, DistanceWeighted, Miner, Semihard


@pytest.mark.integration
# What dynamo cannot trace runs as it is, and it reads the gradient of every tensor.
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace", "ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("miner", [Semihard, BatchHard, DistanceWeighted])
def test_loss_gradient_and_census_are_the_same(miner: Callable[[], Miner]) -> None:
    torch._dynamo.reset()
    counters.clear()
    labels = torch.arange(24) % 6
    embeddings = unit(torch.randn(24, 5, generator=torch.Generator().manual_seed(0)))
    compiled = TripletCriterion(Euclidean(), miner(), 0.3)
    compiled.compile(backend="eager")
    found: list[tuple[Tensor, ...]] = []
    for criterion in (TripletCriterion(Euclidean(), miner(), 0.3), compiled):
        leaf = embeddings.clone().requires_grad_()
        output = criterion(leaf, labels)
        (gradient,) = torch.autograd.grad(output.loss, leaf)
        found.append((output.loss, gradient, *(count for count in output.census if count is not None)))
    assert counters["frames"]["ok"] > 0
    assert found[0][0] > 0.01 and len(found[0]) == 11
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    torch._dynamo.reset()
