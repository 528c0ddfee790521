"""Sums of the soft loss over all triplets in a window.

Shapes: A = anchors, M = references, K = largest number of positives of an anchor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.criterion.counts import first_rows
from metric_module.criterion.windows import Window

PER_LOGARITHM = 4
"""Number of slots that share one logarithm."""

LARGEST_EXCESS = 20.0
"""Largest ``d_ap + margin - d_an`` for which :data:`PER_LOGARITHM` exponentials multiply without overflow."""


def soft_slots(
    values: Tensor,
    target: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    filled: Sequence[tuple[slice, int]],
    weight: Tensor,
    cover: Tensor,
    dim: int = 1,
) -> Tensor:
    """Sum ``softplus(target - d_an)`` over the negatives in the window of each slot.

    With ``f = exp(target - d_an)``, the loss is ``log(1 + f)`` and its derivative ``f / (1 + f)``. One exponential for
    each distance and one for each slot give every f, and one logarithm of a product gives the sum over some slots. If a
    target exceeds a distance by so much that this would overflow, each loss is computed by itself.

    Args:
        values: Distances; the anchors are the rows ``(A, M)``, or for ``dim=0`` the columns ``(M, A)``. Beyond
            ``window_limit`` for references that are not negatives.
        target: ``d_ap + margin`` for each slot and anchor, ``(K, A)``; ``-inf`` in empty slots.
        low: Lower edge, exclusive, ``(K, A)``; None: unbounded.
        high: Upper edge, inclusive, ``(K, A)``; None: unbounded.
        filled: The slots that are filled, by the first anchors; see
            :func:`metric_module.criterion.counts.filled_slots`.
        weight: The derivative by each target is added, ``(K, A)``.
        cover: The derivative by each distance is added, in the shape of ``values``.
        dim: Dimension of the references.

    Returns:
        The sum, float64 ``()``.
    """
    total = values.new_zeros((), dtype=torch.float64)
    if not target.numel() or not values.numel():
        return total
    top = target.amax()  # ()
    fast = bool(top - values.amin() <= LARGEST_EXCESS)
    if fast:
        share = (target - top).exp()  # (K, A), at most 1
        base = ((top - values) * math.log2(math.e)).exp2_()  # (A, M); several times faster than exp on CPUs
    scratch = [torch.empty_like(values) for _ in range(4 if fast else 2)]
    for slots, anchors in _groups(filled):
        part, covers, *buffers = (first_rows(whole, anchors, 1 - dim) for whole in (values, cover, *scratch))
        product = buffers[-1].zero_()
        for slot in range(slots.start, slots.stop):
            edges = Window(*(None if edge is None else edge[slot, :anchors].unsqueeze(dim) for edge in (low, high)))
            if fast:
                odds = torch.mul(
                    first_rows(base, anchors, 1 - dim), share[slot, :anchors].unsqueeze(dim), out=buffers[0]
                )
                _keep(odds, part, edges, buffers[1])
                slope = torch.div(odds, torch.add(odds, 1, out=buffers[1]), out=buffers[1])  # f / (1 + f)
                product.addcmul_(product, odds).add_(odds)  # (1 + product) (1 + f) - 1
            else:
                excess = torch.sub(target[slot, :anchors].unsqueeze(dim), part)
                loss, slope = logsigmoid(-excess).neg_(), excess.sigmoid_()
                for each in (loss, slope):
                    _keep(each, part, edges, buffers[0])
                total += loss.sum(dim=dim).sum(dtype=torch.float64)
            weight[slot, :anchors] += slope.sum(dim=dim)
            covers.sub_(slope)
        if fast:
            total += _log1p(product, *buffers[:2]).sum(dim=dim).sum(dtype=torch.float64)
    return total


def _groups(filled: Sequence[tuple[slice, int]]) -> Iterator[tuple[slice, int]]:
    """Divide ranges of slots into ranges of at most :data:`PER_LOGARITHM`."""
    for slots, anchors in filled:
        for start in range(slots.start, slots.stop, PER_LOGARITHM):
            yield slice(start, min(start + PER_LOGARITHM, slots.stop)), anchors


def _keep(numbers: Tensor, values: Tensor, window: Window, scratch: Tensor) -> None:
    """Set the numbers to zero whose values are outside of the window."""
    low, high = window
    if high is not None:
        numbers.mul_(torch.le(values, high, out=scratch))
    if low is not None:
        numbers.mul_(torch.gt(values, low, out=scratch))


def _log1p(values: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """Compute ``log(1 + x)``, overwriting all arguments; torch's own does not use vector instructions on CPUs.

    The digits of x that its sum with 1 loses are added back to first order.
    """
    larger = torch.add(values, 1, out=one)
    lost = values.sub_(torch.sub(larger, 1, out=two)).div_(larger)
    return larger.log_().add_(lost)
