"""Counts of negatives at or below a distance, for each anchor-positive pair.

All windows and categories of triplets follow from these counts. There are two ways to compute them: one pass over the
block for each slot, which is fast for few positives, or one sort of the block, whose cost hardly depends on their
number. A slot is a place in the list of an anchor's positives, which is padded to length K.

Shapes: A = anchors in the block, M = references, K = largest number of positives of an anchor in the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from metric_module.functional import sort_rows
from metric_module.miners.positives import Slots

SORT_FROM = 24
"""Mean number of positives per anchor above which one sort costs less than one pass for each slot."""


class Span(NamedTuple):
    """Counts of the negatives with ``low < d_an <= high``, where each slot has its own ``low`` and ``high``.

    Attributes:
        number: Number of these negatives for each slot, floating point ``(A, K)``.
        cover: Minus the number of slots whose interval contains the reference, ``(A, M)``; the gradient by d_an.
        total: Sum of ``cover`` times the distances over the references, ``(A,)``.
    """

    number: Tensor
    cover: Tensor
    total: Tensor


class Counter(ABC):
    """Counter of the negatives of one block; edges of empty slots must be ``-inf``.

    Args:
        values: Distances ``(A, M)`` of negatives; larger than every edge for references that are not negatives.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @abstractmethod
    def at_most(self, edge: Tensor) -> Tensor:
        """Count the values at or below each edge, ``(A, K) -> (A, K)``, floating point."""

    @abstractmethod
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Count negatives above ``low`` (None: unbounded) and at or below ``high``; both ``(A, K)``, low <= high."""


def counter_of(values: Tensor, slots: Slots) -> Counter:
    """Choose the faster counter for a block ``(A, M)`` with these positives."""
    if slots.number.sum() > SORT_FROM * len(slots.number):
        return SortedCounter(values)
    return SlotCounter(values, slots)


class SlotCounter(Counter):
    """Counter that passes over the block once for each slot, and reads only the anchors whose slot is filled.

    Args:
        values: See :class:`Counter`.
        slots: The positives of the anchors.
    """

    def __init__(self, values: Tensor, slots: Slots) -> None:
        super().__init__(values)
        # Sorted by number of positives, descending: the anchors that fill a slot are then the first rows.
        number = slots.number
        self.order: Tensor | None = None
        self.rows = values  # (A, M)
        if np.any(number[1:] > number[:-1]):
            number = np.sort(number)[::-1]
            self.order = slots.valid.sum(dim=1).argsort(descending=True, stable=True)  # (A,)
            self.rows = values.index_select(0, self.order)  # (A, M)
        self.filled = filled_slots(number)

    @override
    def at_most(self, edge: Tensor) -> Tensor:
        """Count the values at or below each edge, ``(A, K) -> (A, K)``."""
        edge = self._by_slot(edge)  # (K, A)
        count = torch.zeros_like(edge)  # (K, A)
        count_slots(self.rows, edge, self.filled, count, torch.empty_like(self.rows))
        return self._by_anchor(count)

    @override
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Count the negatives above ``low`` and at or below ``high``."""
        high, low = self._by_slot(high), None if low is None else self._by_slot(low)  # (K, A)
        count, cover = torch.zeros_like(high), torch.zeros_like(self.rows)  # (K, A), (A, M)
        scratch = [torch.empty_like(cover) for _ in range(1 if low is None else 2)]
        cover_slots(self.rows, low, high, self.filled, count, cover, scratch, fresh=True)
        total = torch.mul(cover, self.rows, out=scratch[0]).sum(dim=1)  # (A,)
        if self.order is not None:
            cover = torch.index_copy(torch.empty_like(cover), 0, self.order, cover)
            total = torch.index_copy(torch.empty_like(total), 0, self.order, total)
        return Span(self._by_anchor(count), cover, total)

    def _by_slot(self, edge: Tensor) -> Tensor:
        """Transpose edges ``(A, K)`` to ``(K, A)``, in the order of the rows."""
        return (edge if self.order is None else edge.index_select(0, self.order)).T

    def _by_anchor(self, count: Tensor) -> Tensor:
        """Transpose counts ``(K, A)`` to ``(A, K)``, in the order of the anchors."""
        return count.T if self.order is None else torch.empty_like(count.T).index_copy_(0, self.order, count.T)


def filled_slots(number: npt.NDArray[np.int64]) -> list[tuple[slice, int]]:
    """Return ranges of slots that are filled by the same number of anchors, each with this number.

    Args:
        number: Number of filled slots of each anchor, descending, ``(A,)``.

    Example:
        >>> filled_slots(np.array([3, 1, 0]))
        [(slice(0, 1, None), 2), (slice(1, 3, None), 1)]
    """
    width = int(number.max(initial=0))
    filled: list[int] = np.searchsorted(-number, -np.arange(width)).tolist()  # anchors that fill slot 0, 1, ...
    spans, start = [], 0
    for rows, slots in groupby(filled):
        stop = start + len(list(slots))
        spans.append((slice(start, stop), rows))
        start = stop
    return spans


def count_slots(
    values: Tensor, edge: Tensor, filled: list[tuple[slice, int]], count: Tensor, scratch: Tensor, dim: int = 1
) -> None:
    """Add to ``count`` the number of values at or below each edge.

    Args:
        values: Distances; the anchors are the rows ``(A, M)``, or for ``dim=0`` the columns ``(M, A)``.
        edge: An edge for each slot and anchor, ``(K, A)``.
        filled: The slots that are filled, by the first anchors; see :func:`filled_slots`.
        count: Floating point ``(K, A)``.
        scratch: Overwritten, in the shape of ``values``.
        dim: Dimension of the references.
    """
    for slots, anchors in filled:
        part, inside = (first_rows(whole, anchors, 1 - dim) for whole in (values, scratch))
        for upper, number in zip(_edges(edge, slots, anchors, dim), _of(count, slots, anchors), strict=True):
            number.add_(torch.le(part, upper, out=inside).sum(dim=dim))


def cover_slots(
    values: Tensor,
    low: Tensor | None,
    high: Tensor,
    filled: list[tuple[slice, int]],
    count: Tensor,
    cover: Tensor,
    scratch: Sequence[Tensor],
    dim: int = 1,
    *,
    fresh: bool = False,
) -> None:
    """Add to ``count`` the number of values in each interval, and subtract 1 from ``cover`` for each of them.

    Args:
        values: Distances; the anchors are the rows ``(A, M)``, or for ``dim=0`` the columns ``(M, A)``.
        low: Lower edge for each slot and anchor, ``(K, A)``, exclusive and not above the upper one; None: unbounded.
        high: Upper edge, inclusive, ``(K, A)``.
        filled: The slots that are filled, by the first anchors; see :func:`filled_slots`.
        count: Floating point ``(K, A)``.
        cover: In the shape of ``values``.
        scratch: Two tensors of this shape, or one if there are no lower edges; overwritten.
        dim: Dimension of the references.
        fresh: Whether ``count`` is still zero.
    """
    for slots, anchors in filled:
        part, covers, inside, *below = (first_rows(whole, anchors, 1 - dim) for whole in (values, cover, *scratch))
        lowers = () if low is None else _edges(low, slots, anchors, dim)
        uppers, counts = _edges(high, slots, anchors, dim), _of(count, slots, anchors)
        for slot, (upper, number) in enumerate(zip(uppers, counts, strict=True)):
            torch.le(part, upper, out=inside)
            if lowers:
                inside.sub_(torch.le(part, lowers[slot], out=below[0]))
            if fresh:
                torch.sum(inside, dim=dim, out=number)
            else:
                number.add_(inside.sum(dim=dim))
            covers.sub_(inside)


def _edges(edge: Tensor, slots: slice, anchors: int, dim: int) -> tuple[Tensor, ...]:
    """Edges of some slots, each to be compared with distances whose references are in dimension ``dim``."""
    return _of(edge.unsqueeze(dim + 1), slots, anchors, 2 - dim)


def _of(values: Tensor, slots: slice, anchors: int, dim: int = 1) -> tuple[Tensor, ...]:
    """Values ``(K, ...)`` of some slots, of the first anchors."""
    part = values if slots == slice(0, len(values)) else values[slots]
    return first_rows(part, anchors, dim).unbind()


def first_rows(values: Tensor, number: int, dim: int) -> Tensor:
    """Return the first rows, or with ``dim=1`` columns; the tensor itself if these are all."""
    return values if number == values.shape[dim] else values.narrow(dim, 0, number)


class SortedCounter(Counter):
    """Counter that sorts the references of each anchor once, and finds every edge by binary search."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.ascending, self.order = sort_rows(values)  # (A, M), (A, M)

    @override
    def at_most(self, edge: Tensor) -> Tensor:
        """Count the values at or below each edge, ``(A, K) -> (A, K)``."""
        return self._place(edge).to(edge.dtype)

    @override
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Count the negatives above ``low`` and at or below ``high``."""
        last = self._place(high)  # (A, K)
        first = torch.zeros_like(last) if low is None else self._place(low)
        # -1 at the first position of an interval and +1 after its last: the running sum at a position is minus the
        # number of intervals that contain it.
        change = torch.zeros(len(last), self.values.shape[1] + 1, dtype=high.dtype, device=high.device)
        one = torch.ones_like(high)
        change.scatter_add_(1, first, -one).scatter_add_(1, last, one)
        cover = change.cumsum(dim=1)[:, :-1]  # (A, M), in ascending order
        total = (cover * self.ascending).sum(dim=1)  # (A,)
        cover = torch.empty_like(cover).scatter_(1, self.order, cover)  # (A, M), in the order of the references
        return Span((last - first).to(high.dtype), cover, total)

    def _place(self, edge: Tensor) -> Tensor:
        return torch.searchsorted(self.ascending, edge.contiguous(), right=True)
