"""Search for one negative in a span of distances, for each anchor-positive pair.

There are two ways: a pass over the block for each positive slot, which is fast for few positives, or one sort of the
block, whose cost hardly depends on their number. Both need the memory of a few tensors of the block's size.

Shapes: A = anchors, M = references, K = most positives of any anchor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.functional import sort_rows, window_limit


class Found(NamedTuple):
    """One reference for each slot.

    Attributes:
        column: Column of the reference, int64 ``(A, K)``; any column if none was found.
        valid: Whether one was found, bool ``(A, K)``.
    """

    column: Tensor
    valid: Tensor


def nearest(values: Tensor) -> Found:
    """Find the first smallest value of each row of ``(A, M)``: ``(A, 1)``; none if all are beyond ``window_limit``.

    Example:
        >>> nearest(torch.tensor([[0.5, 0.1, 0.1]]))
        Found(column=tensor([[1]]), valid=tensor([[True]]))
    """
    value, column = values.min(dim=1, keepdim=True)  # (A, 1), (A, 1)
    return Found(column, value < window_limit(values.dtype))


def farthest(values: Tensor) -> Found:
    """Find the first largest value up to ``window_limit`` of each row of ``(A, M)``: ``(A, 1)``.

    Example:
        >>> farthest(torch.tensor([[0.5, 0.1, 0.5, torch.inf]]))
        Found(column=tensor([[0]]), valid=tensor([[True]]))
    """
    within = values < window_limit(values.dtype)  # (A, M)
    column = values.masked_fill(~within, -torch.inf).argmax(dim=1, keepdim=True)  # (A, 1)
    return Found(column, within.any(dim=1, keepdim=True))


def place(draw: Tensor, number: Tensor) -> Tensor:
    """Map draws in [0, 1) to integers in ``[0, number)`` with equal probability; 0 where the number is 0.

    Example:
        >>> place(torch.tensor([0.0, 0.4, 0.9]), torch.tensor([3, 3, 0])).tolist()
        [0, 1, 0]
    """
    # A draw of lower precision than float64 may round up to the number itself.
    return torch.minimum((draw * number).long(), number.long() - 1).clamp_(min=0)


class Search(ABC):
    """Search among the negatives of one block.

    Args:
        values: Distances ``(A, M)`` to the negatives, beyond ``window_limit`` for all else; at least one column.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @abstractmethod
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest negative with ``low < d_an``, for each edge ``(A, K)``.

        Returns:
            Its distance and its column, each ``(A, K)``; a distance beyond ``window_limit`` where there is none.
        """

    @abstractmethod
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """Draw one of the negatives with ``low < d_an <= high``, with equal probability, for edges ``(A, K)``.

        Args:
            low: Lower edges.
            high: Upper edges, not below the lower ones.
            draw: Numbers in [0, 1).
        """


class ScanSearch(Search):
    """A search with one pass over the block for each slot."""

    @override
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest negative beyond each edge."""
        scratch, away = torch.empty_like(self.values), 2 * window_limit(self.values.dtype)
        found = []
        for edge in low.unsqueeze(-1).unbind(1):  # (A, 1)
            torch.le(self.values, edge, out=scratch)  # (A, M), 1 where the value is too small
            found.append(torch.add(self.values, scratch, alpha=away, out=scratch).min(dim=1))
        if not found:
            return low, torch.zeros_like(low, dtype=torch.int64)
        value, column = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))  # (A, K), (A, K)
        return value, column

    @override
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """Draw one negative in each span, counted from the left of the row."""
        column, number = torch.empty_like(low, dtype=torch.int64), torch.empty_like(low)
        inside, scratch = torch.empty_like(self.values), torch.empty_like(self.values)
        for slot in range(low.shape[1]):
            torch.le(self.values, high[:, slot, None], out=inside)  # (A, M)
            inside -= torch.le(self.values, low[:, slot, None], out=scratch)
            torch.cumsum(inside, dim=1, out=scratch)
            number[:, slot] = scratch[:, -1]
            before = place(draw[:, slot, None], scratch[:, -1:]).to(scratch.dtype)  # (A, 1)
            column[:, slot] = torch.searchsorted(scratch, before, right=True)[:, 0]
        return Found(column.clamp_(max=self.values.shape[1] - 1), number > 0)


class SortSearch(Search):
    """A search with one sort of the block; every edge is then a binary search."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.ascending, self.order = sort_rows(values)  # (A, M), (A, M)

    @override
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest negative beyond each edge."""
        index = self._count(low)  # (A, K)
        value, column = (part.gather(1, index.clamp(max=part.shape[1] - 1)) for part in (self.ascending, self.order))
        return value.masked_fill(index == self.values.shape[1], 2 * window_limit(value.dtype)), column

    @override
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """Draw one negative in each span, counted from the nearest."""
        first = self._count(low)  # (A, K)
        number = self._count(high) - first  # (A, K)
        index = (first + place(draw, number)).clamp_(max=self.values.shape[1] - 1)  # (A, K)
        return Found(self.order.gather(1, index), number > 0)

    def _count(self, edge: Tensor) -> Tensor:
        """Number of values at or below each edge."""
        return torch.searchsorted(self.ascending, edge.contiguous(), right=True)
