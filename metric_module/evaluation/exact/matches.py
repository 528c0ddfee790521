"""Blocks of queries with their positives, in a gallery that is sorted by class.

A class is a range of columns of the sorted gallery. A row is a position in the gallery, or in the queries, as given.

Shapes: Q = queries, M = gallery items, C = classes of the gallery, A = queries in a block, L = size of the largest
class in a block, K = largest number of positives of a query, I = largest number of ignored items of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.evaluation.inputs import Items


class Block(NamedTuple):
    """Queries that each have a positive, and the range of their class in the sorted gallery."""

    rows: Tensor  # (A,) rows of the queries
    start: Tensor  # (A,) first column of the query's class
    stop: Tensor  # (A,) one past its last column
    columns: Tensor  # (A, L) the columns of the class, padded with its first column
    positive: Tensor  # (A, L) whether a column is a positive: not the query itself, not ignored


class Listed(NamedTuple):
    """Queries, each with a list of positive and of ignored gallery rows; masks are False where a list is padded."""

    rows: Tensor  # (A,) rows of the queries
    positive: tuple[Tensor, Tensor]  # (A, K) int64, (A, K) bool
    ignored: tuple[Tensor, Tensor]  # (A, I) int64, (A, I) bool

    def to(self, device: torch.device) -> Listed:
        """Move the block to a device."""
        (positive, filled), (ignored, present) = self.positive, self.ignored
        return Listed(
            self.rows.to(device),
            (positive.to(device), filled.to(device)),
            (ignored.to(device), present.to(device)),
        )


class Matches:
    """Queries and gallery sorted by class, smallest class first.

    In this order, the queries of a block have classes of similar size in neighbouring columns of the gallery. Queries
    whose class is not in the gallery are left out.

    Args:
        query: The queries.
        gallery: The gallery, the same object if the queries are their own gallery.
    """

    def __init__(self, query: Items, gallery: Items) -> None:
        self._query, self._gallery = query, gallery
        classes, code, size = torch.unique(gallery.labels, return_inverse=True, return_counts=True)
        by_size = size.argsort(stable=True)  # (C,)
        size = size[by_size]
        rank = torch.empty_like(by_size)  # (C,) position of each class in the order of sizes
        rank[by_size] = torch.arange(len(by_size), device=by_size.device)
        stop = size.cumsum(0)  # (C,)
        self.order = rank[code].argsort(stable=True)  # (M,) sorted column -> row of the gallery
        self._ids = None if gallery.ids is None else gallery.ids[self.order]
        self._groups = None if gallery.groups is None else gallery.groups[self.order]

        present = torch.isin(query.labels, classes).nonzero().flatten()
        class_rank = rank[torch.searchsorted(classes, query.labels[present])]
        class_rank, by_class = class_rank.sort(stable=True)
        self._rows = present[by_class]
        self._start, self._stop = stop[class_rank] - size[class_rank], stop[class_rank]

    def spans(self, queries: int, cells: int) -> list[tuple[int, int]]:
        """Cut the sorted queries into blocks.

        Args:
            queries: Largest number of queries in a block.
            cells: Largest number of cells ``A x L`` in a block; a block of a single query may have more.

        Returns:
            First and one past the last query of each block.
        """
        return list(cut((self._stop - self._start).cpu(), queries, cells))

    def block(self, first: int, last: int) -> Block:
        """Return a block of the sorted queries from ``first`` to ``last - 1``, without those that have no positive."""
        rows, start, stop = self._rows[first:last], self._start[first:last], self._stop[first:last]
        columns = start[:, None] + torch.arange(int((stop - start).max()), device=rows.device)  # (A, L)
        positive = columns < stop[:, None]  # (A, L)
        columns = torch.where(positive, columns, start[:, None])
        if self._ids is not None and self._query.ids is not None:
            positive &= self._ids[columns] != self._query.ids[rows, None]
        if self._groups is not None and self._query.groups is not None:
            positive &= self._groups[columns] != self._query.groups[rows, None]
        keep = positive.any(dim=1)  # (A,)
        return Block(rows[keep], start[keep], stop[keep], columns[keep], positive[keep])


def cut(widths: Tensor, most: int, cells: int) -> Iterator[tuple[int, int]]:
    """Cut rows of different widths into blocks.

    Args:
        widths: Width of each row, int64 ``(N,)``.
        most: Largest number of rows in a block.
        cells: Largest number of cells in a block (rows times the widest of them); a block of one row may have more.

    Yields:
        First and one past the last row of each block.
    """
    first = 0
    while first < len(widths):
        part = widths[first : first + most]
        needed = part.cummax(0).values * torch.arange(1, len(part) + 1)
        last = first + max(1, int((needed <= cells).sum()))
        yield first, last
        first = last


def nearest_first(distances: Tensor, positive: Tensor) -> Tensor:
    """Sort the distances of each query's positives.

    Args:
        distances: Distances to the query's class ``(A, L)``.
        positive: Mask of the positives ``(A, L)``.

    Returns:
        Ascending distances ``(A, K)``, infinite where a query has fewer than K positives.
    """
    most = int(positive.sum(dim=1).max())
    return distances.masked_fill(~positive, torch.inf).sort(dim=1).values[:, :most]


def own_class(start: Tensor, stop: Tensor, first: int, last: int) -> Tensor | None:
    """Mask the columns that belong to the query's class.

    Args:
        start: First column of each query's class ``(A,)``.
        stop: One past its last column ``(A,)``.
        first: First column of the mask.
        last: One past the last column of the mask.

    Returns:
        A mask ``(A, last - first)``, or None if all columns lie before or after the classes of all queries.
    """
    if last <= int(start.min()) or first >= int(stop.max()):
        return None
    columns = torch.arange(first, last, device=start.device)
    return (columns >= start[:, None]) & (columns < stop[:, None])
