"""Counts of pairs of two classes that are as close as the pairs of one class: exact, over all pairs, in bounded memory.

The distances of the pairs of one class are the thresholds. Products place nearly every other pair on one side of each
threshold; pairs within the rounding error of a threshold are placed by their distance itself, as in
:mod:`metric_module.evaluation.exact.euclidean_ranks`, so that no count depends on how the products were blocked.

Shapes: N = samples, A = rows of a tile, B = its columns, T = different thresholds, P = pairs, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm
from metric_module.distributed import sum_over_ranks
from metric_module.evaluation.exact.any_distance import exact_distance, form_or_copy
from metric_module.evaluation.exact.counting import ascending
from metric_module.evaluation.exact.rounding import all_distances, pair_distances, products, rounding
from metric_module.evaluation.exact.threads import in_threads

_SIDE = 1024
_PAIRS = 1 << 18  # single pairs at a time
_FINE = torch.finfo(torch.float64).eps


class PairCounts(NamedTuple):
    """Numbers of pairs of one class and of two classes at different distances.

    Attributes:
        thresholds: The different distances of pairs of one class, and others on request, ascending, ``(T,)`` float64.
        same: Pairs of one class at exactly that distance, int64 ``(T,)``.
        closer: Pairs of two classes at a smaller distance, int64 ``(T,)``.
        within: Pairs of two classes at that distance or a smaller one, int64 ``(T,)``.
        different: Number of all pairs of two classes.
    """

    thresholds: Tensor
    same: Tensor
    closer: Tensor
    within: Tensor
    different: int


class Tile(NamedTuple):
    """Rectangle in the matrix of all pairs."""

    rows: slice
    columns: slice


class EuclideanPairs:
    """Euclidean distances of all pairs of samples, for a distance that follows from them.

    Args:
        embeddings: The samples ``(N, D)``.
        form: The form of the distance.
    """

    def __init__(self, embeddings: Tensor, form: EuclideanForm) -> None:
        self._form = form
        self._rows = form.map(embeddings).double()  # (N, E)
        self._centred = self._rows - self._rows.mean(dim=0)  # (N, D)
        self._norm = torch.linalg.vector_norm(self._centred, dim=1)  # (N,)

    def own(self, thresholds: Tensor) -> Tensor:
        """Convert thresholds from Euclidean distances to the distance that was asked for."""
        return self._form.of(thresholds)

    def inner(self, threshold: float | None) -> Tensor:
        """Convert one threshold ``(1,)`` or none ``(0,)`` to Euclidean distances; rounding never makes it smaller."""
        given = self._rows.new_tensor([] if threshold is None else [threshold])
        if not self._form.squared and self._form.factor == 1:
            return given
        edge = given / self._form.factor
        edge = edge.clamp(min=0).sqrt() if self._form.squared else edge
        return torch.nextafter(edge, torch.full_like(given, torch.inf))

    def paired(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute the distances ``(P,)`` of pairs of rows."""
        parts = zip(torch.split(first, _PAIRS), torch.split(second, _PAIRS), strict=True)
        found = [pair_distances(self._rows[one], self._rows[other]) for one, other in parts]
        return torch.cat([self._rows.new_empty(0), *found])

    def of_one_class(self, labels: Tensor) -> Iterator[Tensor]:
        """Compute the distances of all pairs of one class, in portions."""
        for first, second in _same_class(labels):
            yield self.paired(first, second)

    def count(self, tile: Tile, wanted: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        """Count some pairs of a tile by distance.

        Args:
            tile: The tile.
            wanted: The pairs to count, bool ``(A, B)``.
            thresholds: Ascending distances ``(T,)``.

        Returns:
            Number of pairs closer than each threshold, and at it or closer, int64 ``(T,)`` each.
        """
        rows, columns = self._centred[tile.rows], self._centred[tile.columns]
        norm, others = self._norm[tile.rows, None], self._norm[tile.columns]  # (A, 1), (B,)
        half = norm.square() / 2 - products(rows, columns, others.square() / -2)  # (A, B) half of the squared distance
        values = half[wanted]  # (P,)
        longest, most = norm.max(), others.max()
        error = rounding(longest, most, rows.shape[1], torch.float64) + 8 * _FINE * (longest + most).square()
        edges = thresholds.square() / 2  # (T,)
        ordered = ascending(values)
        sure = torch.searchsorted(ordered, edges - error)  # (T,)
        if torch.equal(sure, torch.searchsorted(ordered, edges + error, right=True)):
            return sure, sure
        edge = torch.searchsorted(edges - error, values, right=True) - 1  # (P,) the last one that a value may reach
        unsure = (edge >= 0) & (values <= (edges + error)[edge.clamp(min=0)])  # (P,)
        sure = torch.searchsorted(ascending(values[~unsure]), edges)  # (T,)
        exact = ascending(self._exact(tile, wanted, unsure))
        return sure + torch.searchsorted(exact, thresholds), sure + torch.searchsorted(exact, thresholds, right=True)

    def _exact(self, tile: Tile, wanted: Tensor, which: Tensor) -> Tensor:
        """Compute the distances of the wanted pairs ``(P,)`` that ``which`` selects, a bool ``(P,)``."""
        if int(which.sum()) > len(which) // 8:
            return all_distances(self._rows[tile.rows], self._rows[tile.columns])[wanted][which]
        row, column = (place[which] for place in wanted.nonzero(as_tuple=True))
        return self.paired(row + tile.rows.start, column + tile.columns.start)


class CustomPairs:
    """Any distance of all pairs of samples, from its float64 matrices, rounded to float32 so that equal pairs tie.

    Args:
        embeddings: The samples ``(N, D)``.
        distance: The distance; in a pair, the sample with the lower row is the query.
    """

    def __init__(self, embeddings: Tensor, distance: Distance) -> None:
        self._rows = embeddings.double()
        self._measure = exact_distance(distance, embeddings.device)

    def own(self, thresholds: Tensor) -> Tensor:
        """Return the thresholds as they are."""
        return thresholds

    def inner(self, threshold: float | None) -> Tensor:
        """Return one threshold ``(1,)`` or none ``(0,)``."""
        return self._rows.new_tensor([] if threshold is None else [threshold])

    def paired(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute the distances ``(P,)`` of pairs of rows."""
        parts = zip(torch.split(first, 32), torch.split(second, 32), strict=True)
        found = [self._measure(self._rows[one], self._rows[other]).diagonal() for one, other in parts]
        return torch.cat([self._rows.new_empty(0), *found])

    def of_one_class(self, labels: Tensor) -> Iterator[Tensor]:
        """Compute the distances of all pairs of one class, in portions."""
        for tile in tiles(len(labels)):
            yield self._matrix(tile)[_before(tile, labels.device) & _same(labels, tile)]

    def count(self, tile: Tile, wanted: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        """Count some pairs of a tile by distance: see :meth:`EuclideanPairs.count`."""
        ordered = ascending(self._matrix(tile)[wanted])
        return torch.searchsorted(ordered, thresholds), torch.searchsorted(ordered, thresholds, right=True)

    def _matrix(self, tile: Tile) -> Tensor:
        """Compute the distances ``(A, B)`` of a tile."""
        return self._measure(self._rows[tile.rows], self._rows[tile.columns])


Pairs = EuclideanPairs | CustomPairs


def pairs_of(embeddings: Tensor, distance: Distance | None) -> Pairs:
    """Measure the pairs of samples ``(N, D)`` by a distance; None is Euclidean."""
    found = form_or_copy(distance, embeddings.device)
    return EuclideanPairs(embeddings, found) if isinstance(found, EuclideanForm) else CustomPairs(embeddings, found)


def count_pairs(pairs: Pairs, labels: Tensor, further: Tensor, shard: tuple[int, int] = (0, 1)) -> PairCounts:
    """Count over all pairs of different samples.

    Args:
        pairs: The pairs of N samples.
        labels: Classes of the samples, int64 ``(N,)``.
        further: Thresholds in addition to the distances of the pairs of one class, ``(n,)``.
        shard: ``(rank, world_size)``: count in every world_size-th tile, starting with number rank. ``closer``,
            ``within`` and ``different`` then cover these tiles only.
    """
    distances = torch.cat([torch.empty(0, dtype=torch.float64, device=labels.device), *pairs.of_one_class(labels)])
    thresholds, place = torch.unique(torch.cat([distances, further]), return_inverse=True)  # (T,), (P + n,)
    same = place[: len(distances)].bincount(minlength=len(thresholds))  # (T,)
    closer, within = torch.zeros_like(same), torch.zeros_like(same)  # (T,)
    lock = Lock()

    def count(tile: Tile) -> int:
        """Add the counts of one tile, and return its number of pairs."""
        wanted = _before(tile, labels.device) & ~_same(labels, tile)  # (A, B)
        found = pairs.count(tile, wanted, thresholds)
        with lock:
            closer.add_(found[0])
            within.add_(found[1])
        return int(wanted.sum())

    mine = tiles(len(labels))[shard[0] :: shard[1]]
    threaded = isinstance(pairs, EuclideanPairs) and labels.device.type == "cpu"
    totals = in_threads(count, mine) if threaded else [count(tile) for tile in mine]
    return PairCounts(thresholds, same, closer, within, sum(totals))


def sum_counts(counts: PairCounts) -> PairCounts:
    """Add up the counts of all processes, each from its own tiles; every process must call it."""
    closer, within = sum_over_ranks(torch.stack([counts.closer, counts.within]))
    different = int(sum_over_ranks(torch.tensor(counts.different, device=closer.device)))
    return counts._replace(closer=closer, within=within, different=different)


def tiles(size: int) -> list[Tile]:
    """Cut the matrix of ``size`` samples into tiles that cover every pair ``i < j``, and some other pairs."""
    starts = range(0, size, _SIDE)
    return [
        Tile(slice(top, min(top + _SIDE, size)), slice(left, min(left + _SIDE, size)))
        for top in starts
        for left in starts
        if left >= top
    ]


def _before(tile: Tile, device: torch.device) -> Tensor:
    """Find the pairs ``(A, B)`` of a tile whose first row is the lower one."""
    rows = torch.arange(tile.rows.start, tile.rows.stop, device=device)  # (A,)
    return rows[:, None] < torch.arange(tile.columns.start, tile.columns.stop, device=device)


def _same(labels: Tensor, tile: Tile) -> Tensor:
    """Find the pairs ``(A, B)`` of a tile that are of one class."""
    return labels[tile.rows, None] == labels[tile.columns]


def _same_class(labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """List the rows ``(P,)``, ``(P,)`` of all pairs ``i < j`` of one class, in portions."""
    order = labels.argsort(stable=True)  # (N,)
    size = torch.unique_consecutive(labels[order], return_counts=True)[1]  # (C,)
    place = torch.arange(len(order), device=order.device)
    after = torch.repeat_interleave(size.cumsum(0), size) - place - 1  # (N,) rows of the class after each sorted row
    ends = after.cumsum(0)  # (N,)
    first = 0
    while first < len(order):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, before + _PAIRS, right=True)))
        count = after[first:last]
        left = torch.repeat_interleave(place[first:last], count)  # (P,)
        step = torch.arange(len(left), device=order.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        yield order[left], order[left + 1 + step]
        first = last
