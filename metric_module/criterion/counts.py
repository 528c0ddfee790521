"""Counts of negatives at or below a distance, for each anchor-positive pair.

All windows and categories of triplets follow from these counts. There are two ways to compute them: a pass over the
block for each positive slot, which is fast for few positives, or one sort of the block, whose cost hardly depends on
their number.

Shapes: A = anchors in the block, M = references, K = most positives of any anchor in the block.
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
"""Mean number of positives from which one sort costs less than a pass for each of them."""


TILE = 1 << 18
"""Number of values in a pass of one thread, so that several tensors of this size fit the cache of its core."""


class Span(NamedTuple):
    """Negatives with ``low < d_an <= high``, for each slot.

    Attributes:
        number: Number of negatives, floating point ``(A, K)``.
        cover: Minus the number of slots whose span contains a reference, ``(A, M)``.
        total: Sum of ``cover`` times the values, ``(A,)``.
    """

    number: Tensor
    cover: Tensor
    total: Tensor


class Counter(ABC):
    """Counts over the references of one block.

    Args:
        values: Distances ``(A, M)`` of negatives; beyond every edge for other references.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @abstractmethod
    def at_most(self, edge: Tensor) -> Tensor:
        """Number of values at or below each edge, ``(A, K) -> (A, K)``, floating point."""

    @abstractmethod
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Negatives above ``low`` (None: no lower edge) and at or below ``high``, each ``(A, K)``, low <= high."""


def counter_of(values: Tensor, slots: Slots) -> Counter:
    """Choose the faster counter for a block ``(A, M)`` with these positives; edges of empty slots must be ``-inf``."""
    number = slots.valid.sum(dim=1)  # (A,)
    if int(number.sum()) > SORT_FROM * len(number):
        return SortedCounter(values)
    return SlotCounter(values, number)


class SlotCounter(Counter):
    """A counter with one pass over the block for each slot, over the anchors that fill it.

    Args:
        values: See :class:`Counter`.
        number: Number of filled slots of each anchor, int64 ``(A,)``.
    """

    def __init__(self, values: Tensor, number: Tensor) -> None:
        super().__init__(values)
        # Anchors with most positives first: those that fill a slot are then the first rows of a tile.
        self.order = most_first(number)  # (A,)
        number = number if self.order is None else number.index_select(0, self.order)
        self.height = max(1, TILE * torch.get_num_threads() // max(1, values.shape[1]))
        starts = range(0, len(values), self.height)
        self.tiles = [slice(start, min(start + self.height, len(values))) for start in starts]
        # Slots of each tile, and the number of its rows that fill them.
        self.filled = [_filled(number[tile]) for tile in self.tiles]

    @override
    def at_most(self, edge: Tensor) -> Tensor:
        """Number of values at or below each edge, ``(A, K) -> (A, K)``."""
        edge = self._by_slot(edge)  # (K, A, 1)
        count = torch.zeros_like(edge[..., 0])  # (K, A)
        for tile, filled in zip(self.tiles, self.filled, strict=True):
            whole = self.values[tile] if self.order is None else self.values.index_select(0, self.order[tile])
            scratch = torch.empty_like(whole)
            for slots, rows in filled:
                span = (slots, slice(tile.start, tile.start + rows))
                for upper, counts in zip(edge[span].unbind(), count[span].unbind(), strict=True):  # (rows, 1), (rows,)
                    inside = torch.le(whole[:rows], upper, out=scratch[:rows])  # (rows, M)
                    torch.sum(inside, dim=1, out=counts)
        return self._by_anchor(count)

    @override
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Negatives above ``low`` and at or below ``high``."""
        high, low = self._by_slot(high), None if low is None else self._by_slot(low)  # (K, A, 1)
        count, cover = torch.zeros_like(high[..., 0]), torch.empty_like(self.values)  # (K, A), (A, M)
        total = torch.empty_like(cover[:, 0])  # (A,)
        # One set of scratch tensors for all tiles: to allocate costs more than to compute.
        scratch = [torch.empty_like(self.values[: self.height]) for _ in range(2 if self.order is None else 4)]
        for tile, filled in zip(self.tiles, self.filled, strict=True):
            upper, lower, *own = (part[: tile.stop - tile.start] for part in scratch)
            whole, covers = self.values[tile], cover[tile]
            if self.order is not None:
                whole, covers = torch.index_select(self.values, 0, self.order[tile], out=own[0]), own[1]
            for slots, rows in filled:
                inside, below, spread = upper[:rows], lower[:rows], covers[:rows]
                part, span = whole[:rows], (slots, slice(tile.start, tile.start + rows))
                lows = () if low is None else low[span].unbind()
                counts = count[span].unbind()
                for slot, edge in enumerate(high[span].unbind()):  # (rows, 1)
                    torch.le(part, edge, out=inside)  # (rows, M)
                    if lows:
                        inside.sub_(torch.le(part, lows[slot], out=below))
                    torch.sum(inside, dim=1, out=counts[slot])
                    if slots.start + slot:
                        spread.sub_(inside)
                    else:
                        torch.neg(inside, out=spread)
            covers[filled[0][1] if filled else 0 :].zero_()  # anchors without a positive
            sums = torch.mul(covers, whole, out=upper).sum(dim=1)  # (rows,)
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
    """Spans of slots that the same number of anchors fills, and this number; anchors with most positives first."""
    filled: list[int] = (len(number) - number.bincount().cumsum(0))[:-1].tolist()  # of slot 0, 1, ...
    spans, start = [], 0
    for rows, slots in groupby(filled):
        stop = start + len(list(slots))
        spans.append((slice(start, stop), rows))
        start = stop
    return spans


class SortedCounter(Counter):
    """A counter with one sort of each anchor's references; every edge is then a binary search."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.order = _argsort(values)  # (A, M)
        self.ascending = values.gather(1, self.order)  # (A, M)

    @override
    def at_most(self, edge: Tensor) -> Tensor:
        """Number of values at or below each edge, ``(A, K) -> (A, K)``."""
        return self._place(edge).to(edge.dtype)

    @override
    def between(self, low: Tensor | None, high: Tensor) -> Span:
        """Negatives above ``low`` and at or below ``high``."""
        last = self._place(high)  # (A, K)
        first = torch.zeros_like(last) if low is None else self._place(low)
        # A span opens at its first place and closes after its last: running sums give the spans over each place.
        change = torch.zeros(len(last), self.values.shape[1] + 1, dtype=high.dtype, device=high.device)
        one = torch.ones_like(high)
        change.scatter_add_(1, first, -one).scatter_add_(1, last, one)
        cover = change.cumsum(dim=1)[:, :-1]  # (A, M), by place
        total = (cover * self.ascending).sum(dim=1)  # (A,)
        cover = torch.empty_like(cover).scatter_(1, self.order, cover)  # (A, M), by reference
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
