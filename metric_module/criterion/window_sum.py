"""Exact sums of the loss over all triplets in a window, for one block of anchors, in ``O(A M)`` memory.

Shapes: A = anchors in the block, M = references, K = most positives of any anchor in the block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.criterion.counts import Counter, counter_of
from metric_module.errors import UserError
from metric_module.functional import window_limit
from metric_module.miners import WindowMiner
from metric_module.miners.positives import Pairs, Slots


class BlockSum(NamedTuple):
    """Sums over the selected triplets of a block.

    Attributes:
        loss: Sum of the losses, float64 ``()``.
        selected: Number of selected triplets, int64 ``()``; None if not counted.
        active: Number of those with a non-zero loss, int64 ``()``.
        gradient: Derivative of ``loss`` by the distances, ``(A, M)``; None if not computed.
    """

    loss: Tensor
    selected: Tensor | None
    active: Tensor
    gradient: Tensor | None


class Negatives(NamedTuple):
    """Positives and negatives of one block, with a counter.

    Attributes:
        slots: The positives.
        d_ap: Distance of each positive, ``(A, K)``; ``-inf`` in empty slots.
        values: Distances ``(A, M)`` of negatives; twice ``window_limit`` is added for other references.
        number: Number of negatives of each anchor, floating point ``(A,)``.
        counter: Counts over ``values``.
    """

    slots: Slots
    d_ap: Tensor
    values: Tensor
    number: Tensor
    counter: Counter


def prepare(distances: Tensor, pairs: Pairs) -> Negatives:
    """Gather the positives, and move barred references beyond every edge; overwrites ``pairs.barred``."""
    slots, barred = pairs
    number = distances.shape[1] - barred.sum(dim=1)  # (A,)
    values = torch.add(distances, barred, alpha=2 * window_limit(distances.dtype), out=barred)  # (A, M)
    d_ap = torch.where(slots.valid, distances.gather(1, slots.column), -math.inf)  # (A, K)
    return Negatives(slots, d_ap, values, number, counter_of(values, slots))


def window_sum(
    block: Negatives, miner: WindowMiner, margin: float, loss: str, *, gradient: bool, count: bool
) -> BlockSum:
    """Sum the loss over every triplet in the miner's window, in ``O(A M)`` memory.

    Args:
        block: Positives and negatives of a block of anchors.
        miner: Defines the window of each positive.
        margin: In units of the distance.
        loss: ``"hinge"`` or ``"soft"``.
        gradient: Whether to compute the gradient.
        count: Whether to count the selected triplets, which may cost a pass.

    Raises:
        UserError: If an edge of the window has the wrong shape.
    """
    edges = miner.window(block.d_ap, margin)
    low, high = _edge(edges[0], block.d_ap, -math.inf), _edge(edges[1], block.d_ap, math.inf)
    if loss == "hinge":
        return _hinge_sum(block, low, high, margin, gradient=gradient, count=count)
    return _soft_sum(block, low, high, margin, gradient=gradient)


def _hinge_sum(
    block: Negatives, low: Tensor | None, high: Tensor | None, margin: float, *, gradient: bool, count: bool
) -> BlockSum:
    """``sum over p of count_p (d_ap + margin) - sum over n of count_n d_an``, over the triplets with a loss above 0."""
    target = block.d_ap + margin  # (A, K)
    reach = torch.nextafter(target, torch.full_like(target, -math.inf))  # the largest d_an with a loss above 0
    if high is not None:
        reach = torch.minimum(reach, high)
    if low is not None:
        reach = torch.maximum(reach, low)
    span = block.counter.between(low, reach)
    pulled = torch.where(block.slots.valid, span.number * target, 0).sum(dtype=torch.float64)
    selected = None
    if count:
        same = high is not None and torch.equal(high, reach)
        selected = whole(span.number) if same else _selected(block, low, high)
    slope = span.cover.scatter_add_(1, block.slots.column, span.number) if gradient else None  # (A, M)
    return BlockSum(pulled + span.total.sum(dtype=torch.float64), selected, whole(span.number), slope)


def _soft_sum(block: Negatives, low: Tensor | None, high: Tensor | None, margin: float, *, gradient: bool) -> BlockSum:
    """The sum of ``softplus(d_ap - d_an + margin)``, one positive slot at a time."""
    total = block.values.new_zeros((), dtype=torch.float64)
    slope = torch.zeros_like(block.values) if gradient else None  # (A, M)
    scratch = torch.empty_like(block.values)
    for slot in range(block.d_ap.shape[1]):
        # Loss and slope are 0 for barred references, which are beyond every edge, and for empty slots.
        excess = (block.d_ap[:, slot, None] + margin) - block.values  # (A, M)
        value, weight = logsigmoid(-excess), excess.sigmoid()  # (A, M), (A, M)
        if high is not None:
            inside = torch.le(block.values, high[:, slot, None], out=scratch)
            value, weight = value * inside, weight * inside
        if low is not None:
            outside = torch.le(block.values, low[:, slot, None], out=scratch)
            value, weight = torch.addcmul(value, value, outside, value=-1), weight - weight * outside
        total -= value.sum(dim=1).sum(dtype=torch.float64)
        if slope is not None:
            slope -= weight
            slope.scatter_add_(1, block.slots.column[:, slot, None], weight.sum(dim=1, keepdim=True))
    selected = _selected(block, low, high)
    return BlockSum(total, selected, selected, slope)


def _selected(block: Negatives, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Number of triplets in the window, int64 ``()``; an upper edge below the lower one makes it empty."""
    if high is None:
        upper = block.number[:, None]  # (A, 1)
    else:
        upper = block.counter.at_most(high if low is None else torch.maximum(low, high))  # (A, K)
    inside = upper if low is None else upper - block.counter.at_most(low)
    return whole(torch.where(block.slots.valid, inside, 0))


def _edge(edge: Tensor | float, d_ap: Tensor, open_end: float) -> Tensor | None:
    """Expand an edge to all slots, ``(A, K)``, ``-inf`` in empty ones; None if the window is open at this end.

    Raises:
        UserError: If the miner's edge has another shape.
    """
    if isinstance(edge, float | int) and edge == open_end:
        return None
    edges = torch.as_tensor(edge, dtype=d_ap.dtype, device=d_ap.device)
    try:
        edges = edges.expand_as(d_ap)
    except RuntimeError:
        raise UserError(
            f"window: expected edges that broadcast to [A, K] = {list(d_ap.shape)}, got shape {list(edges.shape)}"
        ) from None
    return torch.where(d_ap == -math.inf, d_ap, edges.clamp(max=window_limit(d_ap.dtype)))


def whole(counts: Tensor) -> Tensor:
    """Sum counts of floating point type, int64 ``()``."""
    return counts.sum(dtype=torch.float64).long()
