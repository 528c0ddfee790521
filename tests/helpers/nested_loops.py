"""The criterion, compared with three nested loops."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module import TripletCriterion
from tests.oracles.criterion import Reference, triplet_reference


def compare(criterion: TripletCriterion, embeddings: Tensor, labels: list[int]) -> Reference:
    """Compare loss, gradient and counts with the oracle, to 1e-10 relative."""
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    output = criterion(ours, torch.tensor(labels))
    expected = triplet_reference(
        theirs,
        labels,
        type(criterion.distance).__name__,
        type(criterion.miner).__name__,
        criterion.margin,
        criterion.loss,
        criterion.reduction,
    )
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-10, atol=1e-12)
    torch.autograd.backward(output.loss)
    torch.autograd.backward(expected.loss)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    census = output.census
    assert (census.easy, census.semihard, census.hard) == (expected.easy, expected.semihard, expected.hard)
    assert (census.selected, census.active) == (len(expected.selected), expected.active)
    assert (census.lone_anchors, census.anchors) == (expected.lone, len(labels) - expected.lone)
    return expected
