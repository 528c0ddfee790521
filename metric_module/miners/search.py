"""Finding, for every positive of every anchor, one negative in a span of distances.

Two ways: a pass over the block for each positive slot, which is fast for few positives, or one sort of the block, whose
cost hardly depends on their number. Neither needs more memory than the block itself.

Shapes: A = anchors, M = references, K = most positives of any anchor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override


class Found(NamedTuple):
    """One reference for each slot.

    Attributes:
        column: Its column, int64 ``(A, K)``; any column where there is none.
        valid: Whether there is one, bool ``(A, K)``.
    """

    column: Tensor
    valid: Tensor


def only(distances: Tensor, mask: Tensor) -> Tensor:
    """Push the distances ``(A, M)`` outside a bool mask ``(A, M)`` beyond :func:`far`.

    Written as a sum, because choosing by bools is not vectorised on CPUs.

    Example:
        >>> kept = only(torch.tensor([[0.5, 0.1]]), torch.tensor([[True, False]]))
        >>> (kept < far(kept)).tolist()
        [[True, False]]
    """
    return torch.add(distances, (~mask).to(distances.dtype), alpha=2 * far(distances))


def far(distances: Tensor) -> float:
    """Farther than any distance, and yet so near that sums of a few of them are finite."""
    return torch.finfo(distances.dtype).max / 16


def nearest(values: Tensor) -> Found:
    """The first of the smallest values ``(A, M)`` of each row, ``(A, 1)``; nothing in a row where all are far."""
    value, column = values.min(dim=1, keepdim=True)  # (A, 1), (A, 1)
    return Found(column, value < far(values))


class Search(ABC):
    """Looks up negatives of one block.

    Args:
        values: Distances ``(A, M)`` to the negatives, beyond :func:`far` for all else; at least one column.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @abstractmethod
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest negative with ``low < d_an``, for each edge ``(A, K)``.

        Returns:
            Its distance and its column, each ``(A, K)``; a distance beyond :func:`far` where there is none.
        """

    @abstractmethod
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """One of the negatives with ``low < d_an <= high``, all alike likely, for edges ``(A, K)``.

        Args:
            low: Lower edges.
            high: Upper edges, not below the lower ones.
            draw: Numbers in [0, 1).
        """


class ScanSearch(Search):
    """One or two passes over the block for each slot."""

    @override
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest negative beyond each edge."""
        value, column = torch.empty_like(low), torch.empty_like(low, dtype=torch.int64)
        scratch, limit = torch.empty_like(self.values), 2 * far(self.values)
        for slot in range(low.shape[1]):
            torch.le(self.values, low[:, slot, None], out=scratch)  # (A, M), 1 where it is too near
            torch.add(self.values, scratch, alpha=limit, out=scratch)
            value[:, slot], column[:, slot] = scratch.min(dim=1)
        return value, column

    @override
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """One negative within each span, counted off from the left of the row."""
        column, number = torch.empty_like(low, dtype=torch.int64), torch.empty_like(low, dtype=torch.int64)
        inside, near = torch.empty_like(self.values), torch.empty_like(self.values)
        for slot in range(low.shape[1]):
            torch.le(self.values, high[:, slot, None], out=inside)  # (A, M)
            inside -= torch.le(self.values, low[:, slot, None], out=near)
            running = inside.cumsum(dim=1)  # (A, M)
            number[:, slot] = running[:, -1].long()
            place = _place(draw[:, slot], number[:, slot])[:, None] + 1  # (A, 1)
            column[:, slot] = torch.searchsorted(running, place.to(running.dtype))[:, 0]
        return Found(column.clamp_(max=self.values.shape[1] - 1), number > 0)


class SortSearch(Search):
    """One sort of the block; every edge is then a binary search."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.ascending, self.order = values.sort(dim=1, stable=True)  # (A, M), (A, M)

    @override
    def beyond(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest negative beyond each edge."""
        # The last column is reached only if nothing is farther, or if it is itself the one.
        place = self._count(low).clamp_(max=self.values.shape[1] - 1)  # (A, K)
        value = self.ascending.gather(1, place)  # (A, K)
        return value.masked_fill(value <= low, 2 * far(value)), self.order.gather(1, place)

    @override
    def drawn(self, low: Tensor, high: Tensor, draw: Tensor) -> Found:
        """One negative within each span, counted off from the nearest."""
        first = self._count(low)  # (A, K)
        number = self._count(high) - first  # (A, K)
        place = (first + _place(draw, number)).clamp_(max=self.values.shape[1] - 1)  # (A, K)
        return Found(self.order.gather(1, place), number > 0)

    def _count(self, edge: Tensor) -> Tensor:
        return torch.searchsorted(self.ascending, edge.contiguous(), right=True)


def _place(draw: Tensor, number: Tensor) -> Tensor:
    """A whole number in ``[0, number)`` for each draw in [0, 1); 0 where the number is 0."""
    return torch.minimum((draw * number).long(), number - 1).clamp_(min=0)
