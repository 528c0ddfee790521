"""Exact sums of the loss over all triplets in a window, for one block of anchors, in ``O(A M)`` memory.

Shapes: A = anchors in the block, M = references, K = largest number of positives of an anchor in the block.
A slot is a place in the list of an anchor's positives, which is padded to length K; see
:class:`metric_module.miners.positives.Slots`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion.counts import Counter
from metric_module.criterion.soft_sum import soft_slots
from metric_module.criterion.windows import Window, active_window, window_of, within_reach
from metric_module.functional import window_limit
from metric_module.miners import WindowMiner
from metric_module.miners.positives import Candidates, Slots


class PairSlopes(NamedTuple):
    """Derivative of a sum of losses by the distances of some pairs of a block.

    Attributes:
        row: Anchor of each row of pairs, int64 ``(R,)``; None: the anchors of the block, one by one.
        column: Reference of each pair, int64 ``(R, S)``.
        slope: The derivative, ``(R, S)``.
    """

    row: Tensor | None
    column: Tensor
    slope: Tensor


class BlockSum(NamedTuple):
    """Sums over the selected triplets of a block.

    Attributes:
        loss: Sum of the losses, float64 ``()``.
        selected: Number of selected triplets, int64 ``()``; None if not counted.
        active: Number of those with a non-zero loss, int64 ``()``.
        gradient: Derivative of ``loss`` by the distances, ``(A, M)`` or of single pairs; None if not computed.
    """

    loss: Tensor
    selected: Tensor | None
    active: Tensor
    gradient: Tensor | PairSlopes | None


class Negatives(NamedTuple):
    """One block of anchors with its negatives, ready to be counted.

    Attributes:
        block: Distances, positives and negatives.
        number: Number of negatives of each anchor, ``(A,)``.
        counter: Counts the negatives in an interval.
    """

    block: Candidates
    number: Tensor
    counter: Counter


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
    window = window_of(miner, block.block.d_ap, margin, filled=block.block.slots.all_filled)
    if loss == "hinge":
        return _hinge_sum(block, window, margin, gradient=gradient, count=count)
    return _soft_sum(block, window, margin, gradient=gradient)


def _hinge_sum(block: Negatives, window: Window, margin: float, *, gradient: bool, count: bool) -> BlockSum:
    """Sum ``max(0, d_ap - d_an + margin)`` over the triplets in the window.

    A triplet is active if its loss is above 0. Let ``number_p`` and ``number_n`` count the active triplets of an anchor
    that contain p and n. Its sum is then ``sum over p of number_p (d_ap + margin) - sum over n of number_n d_an``, and
    the gradient consists of ``number_p`` and ``-number_n``.
    """
    slots, target = block.block.slots, block.block.d_ap + margin  # (A, K)
    span = block.counter.between(*active_window(window, target))
    positive_sum = sum_of_positives(slots, span.number, target)
    selected = _selected(block, window) if count else None
    slope = span.cover.scatter_add_(1, slots.column, span.number) if gradient else None  # (A, M)
    return BlockSum(positive_sum + span.total.sum(dtype=torch.float64), selected, whole(span.number), slope)


def _soft_sum(block: Negatives, window: Window, margin: float, *, gradient: bool) -> BlockSum:
    """Sum ``softplus(d_ap - d_an + margin)`` over the triplets in the window."""
    _, slots, d_ap, values = block.block
    weight, slope = torch.zeros_like(d_ap.T), torch.zeros_like(values)  # (K, A), (A, M)
    low, high = (None if edge is None else edge.T for edge in within_reach(window))  # (K, A), (K, A)
    every = [(slice(0, len(weight)), len(values))]
    total = soft_slots(values, d_ap.T + margin, low, high, every, weight, slope)
    selected = _selected(block, window)
    if gradient:
        slope.scatter_add_(1, slots.column, weight.T)
    return BlockSum(total, selected, selected, slope if gradient else None)


def _selected(block: Negatives, window: Window) -> Tensor:
    """Count the triplets in the window, int64 ``()``; none for a positive whose upper edge is below its lower edge."""
    low, high = counted_edges(window)
    upper, lower = (None if edge is None else block.counter.at_most(edge) for edge in (high, low))  # (A, K), (A, K)
    return selected_between(block.block.slots, block.number, lower, upper)


def counted_edges(window: Window) -> Window:
    """Return the edges at which negatives are counted to count a window's triplets: in reach, and low <= high."""
    low, high = within_reach(window)
    return Window(low, high if low is None or high is None else torch.maximum(low, high))


def selected_between(slots: Slots, number: Tensor, lower: Tensor | None, upper: Tensor | None) -> Tensor:
    """Count the triplets in a window, int64 ``()``, from the numbers of negatives up to its edges.

    Args:
        slots: The positives of the anchors.
        number: Number of negatives of each anchor, ``(A,)``.
        lower: Number of negatives up to the lower edge, ``(A, K)``; None: it is unbounded.
        upper: Number of negatives up to the upper edge, ``(A, K)``; None: it is unbounded.
    """
    inside = number[:, None] if upper is None else upper
    return whole((inside if lower is None else inside - lower) * slots.valid)


def sum_of_positives(slots: Slots, number: Tensor, target: Tensor) -> Tensor:
    """Sum ``number * target`` over the positives: their part of the hinge, float64 ``()``.

    Args:
        slots: The positives of the anchors.
        number: Number of active triplets with each positive, ``(A, K)`` or ``(K, A)``; 0 in empty slots.
        target: ``d_ap + margin``, in the same shape; ``-inf`` in empty slots.
    """
    finite = target if slots.all_filled else target.clamp(min=-window_limit(target.dtype))
    return (number * finite).sum(dtype=torch.float64)


def whole(counts: Tensor) -> Tensor:
    """Sum counts that are stored as floating point numbers; the total is int64 ``()``."""
    return counts.sum(dtype=torch.float64).long()
