"""Counts of negatives at or below a distance, for each anchor-positive pair.

All windows and categories of triplets follow from these counts. There are two ways to compute them: one pass over the
block for each slot, which is fast for few positives, or one sort of the block, whose cost hardly depends on their
number. A slot is a place in the list of an anchor's positives, which is padded to length K.

Shapes: A = anchors in the block, M = references, K = largest number of positives of an anchor in the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from metric_module.miners.positives import Slots, most_first

SORT_FROM = 40
"""Mean number of positives per anchor above which one sort costs less than one pass for each slot."""

TILE = 1 << 18
"""Number of distances that each thread processes at once; several tensors of this size fit in the cache of a core."""


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
    number = slots.valid.sum(dim=1)  # (A,)
    if int(number.sum()) > SORT_FROM * len(number):
        return SortedCounter(values)
    return SlotCounter(values, number)


class SlotCounter(Counter):
    """Counter that passes over the block once for each slot, and reads only the anchors whose slot is filled.

    Args:
        values: See :class:`Counter`.
        number: Number of filled slots of each anchor, int64 ``(A,)``.
    """

    def __init__(self, values: Tensor, number: Tensor) -> None:
        super().__init__(values)
        # Sorted by number of positives, descending: the anchors that fill a slot are then the first rows of a tile.
        self.order = most_first(number)  # (A,)
        number = number if self.order is None else number.index_select(0, self.order)
        self.height = max(1, TILE * torch.get_num_threads() // max(1, values.shape[1]))
        starts = range(0, len(values), self.height)
        self.tiles = [slice(start, min(start + self.height, len(values))) for start in starts]
        # For each tile, ranges of slots, and how many of its first rows fill them.
        self.filled = [_filled(number[tile]) for tile in self.tiles]

    @override
    def at_most(self, edge: Tensor) -> Tensor:
        """Count the values at or below each edge, ``(A, K) -> (A, K)``."""
        edge = self._by_slot(edge)  # (K, A, 1)
        count = torch.zeros_like(edge[..., 0])  # (K, A)
        for tile, filled in zip(self.tiles, self.filled, strict=True):
            values = self.values[tile] if self.order is None else self.values.index_select(0, self.order[tile])
            scratch = torch.empty_like(values)
            for slots, rows in filled:
                part = (slots, slice(tile.start, tile.start + rows))
                for upper, counts in zip(edge[part].unbind(), count[part].unbind(), strict=True):  # (rows, 1), (rows,)
                    inside = torch.le(values[:rows], upper, out=scratch[:rows])  # (rows, M)
                    torch.sum(inside, dim=1, out=counts)
        return self._by_anchor(count)

    @override
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Count the negatives above ``low`` and at or below ``high``."""
        high, low = self._by_slot(high), None if low is None else self._by_slot(low)  # (K, A, 1)
        count, cover = torch.zeros_like(high[..., 0]), torch.empty_like(self.values)  # (K, A), (A, M)
        total = torch.empty_like(cover[:, 0])  # (A,)
        # One set of scratch tensors for all tiles, because allocating them costs more than the computation.
        scratch = [torch.empty_like(self.values[: self.height]) for _ in range(2 if self.order is None else 4)]
        for tile, filled in zip(self.tiles, self.filled, strict=True):
            inside_all, below_all, *ordered = (buffer[: tile.stop - tile.start] for buffer in scratch)
            values, covers = self.values[tile], cover[tile]
            if self.order is not None:
                values, covers = torch.index_select(self.values, 0, self.order[tile], out=ordered[0]), ordered[1]
            for slots, rows in filled:
                inside, below, row_covers = inside_all[:rows], below_all[:rows], covers[:rows]
                row_values, part = values[:rows], (slots, slice(tile.start, tile.start + rows))
                lows = () if low is None else low[part].unbind()
                counts = count[part].unbind()
                for slot, edge in enumerate(high[part].unbind()):  # (rows, 1)
                    torch.le(row_values, edge, out=inside)  # (rows, M)
                    if lows:
                        inside.sub_(torch.le(row_values, lows[slot], out=below))
                    torch.sum(inside, dim=1, out=counts[slot])
                    if slots.start + slot:
                        row_covers.sub_(inside)
                    else:  # the first slot: the memory is not initialized
                        torch.neg(inside, out=row_covers)
            covers[filled[0][1] if filled else 0 :].zero_()  # anchors without a positive
            sums = torch.mul(covers, values, out=inside_all).sum(dim=1)  # (rows,)
            if self.order is None:
                total[tile] = sums
            else:
                cover.index_copy_(0, self.order[tile], covers)
                total.index_copy_(0, self.order[tile], sums)
        return Span(self._by_anchor(count), cover, total)

    def _by_slot(self, edge: Tensor) -> Tensor:
        """Transpose edges ``(A, K)`` to ``(K, A, 1)``, in the order of the rows."""
        return (edge if self.order is None else edge.index_select(0, self.order)).T.contiguous()[..., None]

    def _by_anchor(self, count: Tensor) -> Tensor:
        """Transpose counts ``(K, A)`` to ``(A, K)``, in the order of the anchors."""
        return count.T if self.order is None else torch.empty_like(count.T).index_copy_(0, self.order, count.T)


def _filled(number: Tensor) -> list[tuple[slice, int]]:
    """Return ranges of slots that are filled by the same number of anchors, each with this number."""
    filled: list[int] = (len(number) - number.bincount().cumsum(0))[:-1].tolist()  # anchors that fill slot 0, 1, ...
    spans, start = [], 0
    for rows, slots in groupby(filled):
        stop = start + len(list(slots))
        spans.append((slice(start, stop), rows))
        start = stop
    return spans


class SortedCounter(Counter):
    """Counter that sorts the references of each anchor once, and finds every edge by binary search."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.order = _argsort(values)  # (A, M)
        self.ascending = values.gather(1, self.order)  # (A, M)

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


def _argsort(values: Tensor) -> Tensor:
    """Columns of each row in ascending order of value, int64 ``(A, M)``; equal values in any order.

    NumPy sorts a row several times faster than torch, with vector instructions; torch sorts rows in parallel.
    """
    if values.device.type == "cpu" and torch.get_num_threads() < 5:
        return torch.from_numpy(np.argsort(values.numpy(), axis=1))
    return values.argsort(dim=1)
