"""Exact sums of the loss over all triplets in a window, for one block of anchors, in ``O(A M)`` memory.

Shapes: A = anchors in the block, M = references, K = largest number of positives of an anchor in the block.
A slot is a place in the list of an anchor's positives, which is padded to length K; see
:class:`metric_module.miners.positives.Slots`.
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
    """Distances of one block, prepared for :func:`window_sum`: positives in slots, negatives in a matrix.

    Attributes:
        slots: The positives.
        d_ap: Distance of each positive, ``(A, K)``; ``-inf`` in empty slots.
        values: Distances ``(A, M)``. A reference that is not a negative of the anchor has twice ``window_limit`` added,
            and so lies beyond every finite edge of a window.
        number: Number of negatives of each anchor, floating point ``(A,)``.
        counter: Counts the negatives in an interval of ``values``.
    """

    slots: Slots
    d_ap: Tensor
    values: Tensor
    number: Tensor
    counter: Counter


def prepare(distances: Tensor, pairs: Pairs) -> Negatives:
    """Gather the distances of the positives, and move references that are not negatives beyond every window edge.

    Args:
        distances: Distances from anchors to references, ``(A, M)``.
        pairs: Positives, and the mask ``barred`` of references that are not negatives; the mask is overwritten.
    """
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
        margin: Margin of the loss, in units of the distance.
        loss: ``"hinge"``: ``max(0, d_ap - d_an + margin)``, or ``"soft"``: ``softplus(d_ap - d_an + margin)``.
        gradient: Whether to compute the gradient.
        count: Whether to count the selected triplets, which may take another pass over the block. The soft loss always
            counts them.

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
    """Sum ``max(0, d_ap - d_an + margin)`` over the triplets in the window.

    A triplet is active if its loss is above 0. Let ``number_p`` and ``number_n`` count the active triplets of an anchor
    that contain p and n. Its sum is then ``sum over p of number_p (d_ap + margin) - sum over n of number_n d_an``, and
    the gradient consists of ``number_p`` and ``-number_n``.
    """
    target = block.d_ap + margin  # (A, K)
    upper = torch.nextafter(target, torch.full_like(target, -math.inf))  # the largest d_an with a loss above 0
    if high is not None:
        upper = torch.minimum(upper, high)
    if low is not None:
        upper = torch.maximum(upper, low)  # empty where no triplet is active: the counter needs low <= upper
    span = block.counter.between(low, upper)
    positive_sum = torch.where(block.slots.valid, span.number * target, 0).sum(dtype=torch.float64)
    selected = None
    if count:
        all_active = high is not None and torch.equal(high, upper)
        selected = whole(span.number) if all_active else _selected(block, low, high)
    slope = span.cover.scatter_add_(1, block.slots.column, span.number) if gradient else None  # (A, M)
    return BlockSum(positive_sum + span.total.sum(dtype=torch.float64), selected, whole(span.number), slope)


def _soft_sum(block: Negatives, low: Tensor | None, high: Tensor | None, margin: float, *, gradient: bool) -> BlockSum:
    """Sum ``softplus(d_ap - d_an + margin)`` over the triplets in the window, one positive slot at a time."""
    total = block.values.new_zeros((), dtype=torch.float64)
    slope = torch.zeros_like(block.values) if gradient else None  # (A, M)
    scratch = torch.empty_like(block.values)
    for slot in range(block.d_ap.shape[1]):
        # In an empty slot (d_ap = -inf), and for a reference that is not a negative (a huge value), the excess is so
        # far below 0 that loss and slope are 0.
        excess = (block.d_ap[:, slot, None] + margin) - block.values  # (A, M)
        value, weight = logsigmoid(-excess), excess.sigmoid()  # (A, M) minus the loss, (A, M) its derivative by d_ap
        if high is not None:
            inside = torch.le(block.values, high[:, slot, None], out=scratch)
            value, weight = value * inside, weight * inside
        if low is not None:
            below = torch.le(block.values, low[:, slot, None], out=scratch)
            value, weight = torch.addcmul(value, value, below, value=-1), weight - weight * below
        total -= value.sum(dim=1).sum(dtype=torch.float64)
        if slope is not None:
            slope -= weight
            slope.scatter_add_(1, block.slots.column[:, slot, None], weight.sum(dim=1, keepdim=True))
    selected = _selected(block, low, high)
    return BlockSum(total, selected, selected, slope)


def _selected(block: Negatives, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Count the triplets in the window, int64 ``()``; none for a positive whose upper edge is below its lower edge."""
    if high is None:
        upper = block.number[:, None]  # (A, 1)
    else:
        upper = block.counter.at_most(high if low is None else torch.maximum(low, high))  # (A, K)
    inside = upper if low is None else upper - block.counter.at_most(low)
    return whole(torch.where(block.slots.valid, inside, 0))


def _edge(edge: Tensor | float, d_ap: Tensor, open_end: float) -> Tensor | None:
    """Expand an edge of the window to ``(A, K)``, with ``-inf`` in empty slots; None if this side is unbounded.

    Args:
        edge: The miner's edge: one number, or a tensor that broadcasts to ``(A, K)``.
        d_ap: Distance of each positive, ``(A, K)``.
        open_end: The infinity by which a miner says that the window has no edge on this side.

    Raises:
        UserError: If the edge does not broadcast to ``(A, K)``.
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
    """Sum counts that are stored as floating point numbers; the total is int64 ``()``."""
    return counts.sum(dtype=torch.float64).long()
