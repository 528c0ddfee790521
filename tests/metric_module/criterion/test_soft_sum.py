"""The soft loss by one exponential for each distance, and by one for each triplet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.criterion import soft_sum
from metric_module.criterion.soft_sum import PER_LOGARITHM, soft_slots
from metric_module.criterion.windows import Window
from metric_module.distances import Euclidean
from metric_module.functional import window_limit
from metric_module.miners import All
from tests.helpers.batches import embed


def both_ways(values: Tensor, target: Tensor, edges: Window) -> list[tuple[Tensor, ...]]:
    """Sum, slopes of the targets and of the distances, in the fast way and in the safe one."""
    filled = [(slice(0, len(target)), len(values))]
    results: list[tuple[Tensor, ...]] = []
    for largest in (soft_sum.LARGEST_EXCESS, -1e9):
        weight, cover = torch.zeros_like(target), torch.zeros_like(values)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(soft_sum, "LARGEST_EXCESS", largest)
            total = soft_slots(values, target, edges.low, edges.high, filled, weight, cover)
        results.append((total, weight, cover))
    return results


@pytest.mark.parametrize("slots", [1, PER_LOGARITHM, PER_LOGARITHM + 3])
@pytest.mark.parametrize("shift", [0.0, -14.0, 9.0])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_agree(slots: int, shift: float, window: bool, dtype: torch.dtype) -> None:
    values, target = embed(20, columns=30).abs().to(dtype), (embed(slots, seed=1, columns=20) + shift).to(dtype)
    values[:, ::5] = 2 * window_limit(dtype)  # no negatives
    target[-1, :4] = -torch.inf  # empty slots
    edges = Window(torch.full_like(target, 0.3), torch.full_like(target, 2.0)) if window else Window(None, None)
    fast, safe = both_ways(values, target, edges)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    assert safe[0] > 0 and safe[1].max() > 0 and safe[2].min() < 0
    for ours, expected in zip(fast, safe, strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=0)


def test_distances_of_any_size_do_not_overflow() -> None:
    embeddings, labels = embed(24), torch.arange(24) // 4
    losses = []
    for dtype in (torch.float32, torch.float64):
        leaf = (1e4 * embeddings).to(dtype).requires_grad_()
        output = TripletCriterion(Euclidean(), All(), 0.2, "soft")(leaf, labels)
        torch.autograd.backward(output.loss)
        assert leaf.grad is not None and leaf.grad.isfinite().all()
        losses.append(output.loss.double())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
