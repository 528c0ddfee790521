"""Exact k nearest neighbours: fast matrix products first, exact distances where a decision is close.

The gallery is read tile by tile. For each query, the nearest items so far are kept with their exact distances. A
float32 product of queries and tile bounds every distance from below; only items that may be among the nearest are
measured by the definition in :mod:`~metric_module.evaluation.exact.rounding`. If these are too many for a query,
float64 products decide, and after them the distances of the whole tile.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = items in a tile, D = embedding size, K = neighbours,
S = segments of a row of scores, W = columns in a segment, R = queries with candidates, N = candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance, EuclideanForm
from metric_module.distances.base import Measure
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance, form_or_copy
from metric_module.evaluation.exact.rounding import all_distances, indexed_distances, products, rounding
from metric_module.evaluation.exact.threads import in_threads
from metric_module.functional import float64_device, full_precision, nonfinite_rows

_QUERIES = 128  # queries in a block
_NUMBERS = 1 << 21  # scores in a block of queries and a tile
_CACHED = 1 << 19  # numbers of the gallery that stay in the cache
_SEGMENT = 256
_SMALL = 2048  # items in a tile for a distance that may need memory for every pair and coordinate
_SAMPLE = 1024  # gallery rows from which the centre is estimated
_OFF_CENTRE = 16.0  # squared length of the mean, as a multiple of the spread around it, that makes products inexact
_LARGEST = 2.0**500  # a longer row's square overflows float64


class Nearest(NamedTuple):
    """Distances of the nearest items, float64 ``(Q, K)``, nearest first, and their positions, int64 ``(Q, K)``."""

    distances: Tensor
    positions: Tensor

    @classmethod
    def none(cls, rows: int, count: int, device: torch.device) -> Nearest:
        """Return infinite distances and positions -1."""
        distances = torch.full((rows, count), torch.inf, dtype=torch.float64, device=device)  # (Q, K)
        return cls(distances, torch.full_like(distances, -1, dtype=torch.int64))

    def insert(self, owner: Tensor, distances: Tensor, positions: Tensor) -> None:
        """Replace farther items by candidates, in place.

        Args:
            owner: Row of each candidate, ascending, int64 ``(N,)``.
            distances: Its distance, float64 ``(N,)``.
            positions: Its position, int64 ``(N,)``.
        """
        if not len(owner):
            return
        rows, counts = torch.unique_consecutive(owner, return_counts=True)  # (R,), (R,)
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)  # (N,)
        slot = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[row]  # (N,)
        added = Nearest.none(len(rows), int(counts.max()), rows.device)
        added.distances[row, slot], added.positions[row, slot] = distances, positions
        kept = join([Nearest(self.distances[rows], self.positions[rows]), added], self.distances.shape[1])
        self.distances[rows], self.positions[rows] = kept


def join(found: Sequence[Nearest], count: int) -> Nearest:
    """Return the ``count`` nearest of several results for the same queries, ordered by distance and then position."""
    positions, order = torch.cat([one.positions for one in found], dim=1).sort(dim=1)
    distances, again = torch.cat([one.distances for one in found], dim=1).gather(1, order).sort(dim=1, stable=True)
    positions = positions.gather(1, again)
    return Nearest(distances[:, :count].contiguous(), positions[:, :count].contiguous())


class _Tile(NamedTuple):
    rows: Tensor  # (T, D)
    first: int  # position of the first row


def nearest(
    query: Tensor,
    gallery: Tensor | Sequence[Tensor],
    k: int,
    distance: Distance | None = None,
    exclude: Tensor | None = None,
) -> Nearest:
    """Find the k nearest items of each query, exactly: equal to sorting all float64 distances, ties by position.

    The gallery may be memory-mapped: it is read a few megabytes at a time, once for each block of queries.

    Args:
        query: Queries ``(Q, D)``.
        gallery: Items ``(M, D)``, or consecutive parts of them.
        k: Number of neighbours; K is M if the gallery is smaller.
        distance: The distance; None is Euclidean. One without a Euclidean form is rounded to float32.
        exclude: Position of an item to leave out for each query, -1 for none, int64 ``(Q,)``.

    Returns:
        The neighbours, on the device of the queries. A row with fewer than K ends with infinity and position -1.

    Raises:
        UserError: If k is less than 1, or a row has another width, is not finite, or has a number above 1e150.

    Example:
        >>> found = nearest(torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [-1.0]]), k=2)
        >>> found.distances.tolist(), found.positions.tolist()
        ([[1.0, 1.0]], [[1, 2]])
    """
    if k < 1:
        raise UserError(f"k: expected 1 or more neighbours, got {k}")
    parts = [gallery] if isinstance(gallery, Tensor) else list(gallery)
    check_embeddings("queries", query, parts[0].shape[1] if parts else None)
    device = float64_device(query.device)
    rows = query.detach().to(device)  # (Q, D)
    count = min(k, sum(map(len, parts)))
    if not count or not len(rows):
        return Nearest.none(len(rows), count, query.device)
    skipped = None if exclude is None else exclude.to(device)  # (Q,)
    with full_precision(device.type), torch.no_grad():
        form = form_or_copy(distance, device)
        center = _center(parts, form, device) if isinstance(form, EuclideanForm) else None
        queries = max(1, min(_QUERIES, len(rows), _NUMBERS // (4 * count)))  # A
        tiles = _tiles(parts, _whole(max(4 * count, _tile_size(form, queries, rows.shape[1]))))
        found = []
        for block in torch.split(torch.arange(len(rows), device=device), queries):
            some, left_out = rows[block], None if skipped is None else skipped[block]  # (A, D), (A,)
            if isinstance(form, EuclideanForm):
                searcher: _Search = _ByProducts(some, left_out, count, form, center)
            else:
                searcher = _Search(some.double(), left_out, count, exact_distance(distance, device))
            found.append(searcher.over(tiles))
    return Nearest(*(torch.cat(part).to(query.device) for part in zip(*found, strict=True)))


def _tile_size(form: EuclideanForm | Distance, queries: int, width: int) -> int:
    """Return the number of gallery rows that are read at once: the fewer the numbers for each, the more."""
    if isinstance(form, EuclideanForm) and form.rows is None:
        return min(_NUMBERS // queries, 4 * _NUMBERS // width)
    return min(_NUMBERS // width, _NUMBERS if isinstance(form, EuclideanForm) else _SMALL)


def _tiles(parts: Sequence[Tensor], size: int) -> list[_Tile]:
    """Cut the parts of a gallery into tiles of at most ``size`` rows."""
    tiles, first = [], 0
    for part in parts:
        for rows in torch.split(part.detach(), size) if len(part) else ():
            tiles.append(_Tile(rows, first))
            first += len(rows)
    return tiles


def _center(parts: Sequence[Tensor], form: EuclideanForm, device: torch.device) -> Tensor | None:
    """Estimate the mean ``(D,)`` of the gallery from some of its rows; None if it is close enough to zero."""
    step = -(-sum(map(len, parts)) // _SAMPLE)
    sample = torch.cat([part.detach()[::step] for part in parts]).to(device)  # (at most _SAMPLE + parts, D)
    sample = form.map(sample[sample.isfinite().all(dim=1)])
    center = sample.double().mean(dim=0).to(sample.dtype)  # (D,)
    spread = (sample.double() - center.double()).square().sum(dim=1).mean()
    off = center.double().square().sum() > _OFF_CENTRE * spread
    return center if bool(off) and bool(center.isfinite().all()) else None


@dataclass
class _Search:
    """Search for a block of queries by measuring all distances.

    Args:
        rows: Queries ``(A, D)``.
        skipped: Position to leave out for each query, int64 ``(A,)``, or None.
        count: Number of neighbours K.
        measure: The distance.
    """

    rows: Tensor
    skipped: Tensor | None
    count: int
    measure: Measure

    def over(self, tiles: Sequence[_Tile]) -> Nearest:
        """Search all tiles, in as many threads as torch may use."""
        workers = torch.get_num_threads() if self.rows.device.type == "cpu" else 1
        size = _whole(max(len(tile.rows) for tile in tiles))
        queue = iter(tiles)  # each thread takes the next tile, so that none waits for a slow one
        return join(in_threads(lambda _: self._over_some(queue, size), range(min(workers, len(tiles)))), self.count)

    def _over_some(self, tiles: Iterator[_Tile], size: int) -> Nearest:
        best = Nearest.none(len(self.rows), self.count, self.rows.device)
        # Scores of every tile go to the same memory: new memory would be mapped and cleared each time.
        scores = torch.empty(len(self.rows), size, device=self.rows.device)  # (A, T)
        for rows, first in tiles:
            self.visit(best, _Tile(rows.to(self.rows.device), first), scores)
        return best

    def visit(self, best: Nearest, tile: _Tile, scores: Tensor) -> None:
        """Insert the items of a tile that are nearer than those found before."""
        _check_rows(tile.rows.double(), tile.first)
        self.visit_all(best, tile._replace(rows=tile.rows.double()), torch.arange(len(self.rows)))

    def visit_all(self, best: Nearest, tile: _Tile, which: Tensor) -> None:
        """Do so for some queries ``(A,)`` from the distances of all pairs."""
        found = self.measure(self.rows[which], tile.rows)  # (A, T)
        self._leave_out(found, tile, which, torch.inf)
        kth = found.topk(min(self.count, found.shape[1]), dim=1, largest=False).values[:, -1:]  # (A, 1)
        tied = found == kth  # (A, T)
        near = (found < kth) | (tied & (tied.cumsum(dim=1) <= self.count))  # (A, T)
        row, column = (near & (found < best.distances[which, -1:])).nonzero(as_tuple=True)  # (N,), (N,)
        best.insert(which[row], found[row, column], tile.first + column)

    def _leave_out(self, values: Tensor, tile: _Tile, which: Tensor, value: float) -> None:
        """Set the values ``(A, T)`` of pairs that are left out."""
        if self.skipped is None:
            return
        column = self.skipped[which] - tile.first  # (A,)
        row = ((column >= 0) & (column < len(tile.rows))).nonzero()[:, 0]
        if len(row):
            values[row, column[row]] = value


class _ByProducts(_Search):
    """Search for a block of queries under a distance with a Euclidean form.

    Args:
        rows: Queries ``(A, D)``.
        skipped: Position to leave out for each query, int64 ``(A,)``, or None.
        count: Number of neighbours K.
        form: How the distance follows from the Euclidean one.
        center: Subtracted from all rows before they are multiplied ``(D,)``; None: nothing.
    """

    def __init__(
        self, rows: Tensor, skipped: Tensor | None, count: int, form: EuclideanForm, center: Tensor | None
    ) -> None:
        super().__init__(form.map(rows), skipped, count, all_distances)
        self._form, self._center = form, center
        self._centred = self._shift(self.rows, torch.float64)  # (A, D)
        self._squared = self._centred.square().sum(dim=1, keepdim=True)  # (A, 1)
        self._norm = self._squared.sqrt()  # (A, 1)
        self._longest = float(self._norm.max())
        if not self._longest < _LARGEST:
            raise _too_large("queries", rows)

    def over(self, tiles: Sequence[_Tile]) -> Nearest:
        """Search all tiles, in as many threads as torch may use."""
        found = super().over(tiles)
        return Nearest(self._form.of(found.distances), found.positions)

    def visit(self, best: Nearest, tile: _Tile, scores: Tensor) -> None:
        """Insert the items of a tile that are nearer than those found before."""
        if self._form.rows is not None:
            _check_rows(tile.rows, tile.first)
            tile = tile._replace(rows=self._form.map(tile.rows))
        which = torch.arange(len(self.rows), device=self.rows.device)  # (A,)
        for dtype in (torch.float32, torch.float64):
            which = self._visit_some(best, tile, which, scores.to(dtype))
            if not len(which):
                return
        self.visit_all(best, tile, which)

    def _shift(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Subtract the centre from rows, and convert them to a type."""
        if self._center is None:
            return rows.to(dtype)
        wide = torch.promote_types(rows.dtype, dtype)
        return (rows.to(wide) - self._center).to(dtype)

    def _visit_some(self, best: Nearest, tile: _Tile, which: Tensor, scores: Tensor) -> Tensor:
        """Insert the nearer items of a tile by products in the type of ``scores``, which are overwritten.

        Returns:
            The queries, int64, for which these leave too many items undecided; nothing was inserted for them.
        """
        dtype, width, size = scores.dtype, tile.rows.shape[1], len(tile.rows)
        score = scores.flatten()[: len(which) * _whole(size)].view(len(which), -1)  # (A, T) padded to whole segments
        score[:, size:] = -torch.inf
        longest = self._fill(score, tile.rows, self._centred[which].to(dtype))
        if not (longest + self._longest) ** 2 < torch.finfo(dtype).max / 8:  # NaN too
            if dtype == torch.float64:
                _check_rows(tile.rows, tile.first)
            return which
        self._leave_out(score, tile, which, -torch.inf)
        # The second term: half of the squared norms is itself a rounded sum.
        bound = rounding(self._norm[which], torch.tensor(longest, dtype=torch.float64), width, dtype)  # (A, 1)
        bound += (width + 4) * torch.finfo(dtype).eps * longest**2 / 4
        limit = best.distances[which, -1:]  # (A, 1)
        edge = _below((self._squared[which] - limit.square()) / 2 - bound, dtype)  # (A, 1)
        row, column = self._candidates(score, edge, bound)  # (N,), (N,)
        many = torch.bincount(row, minlength=len(which)) > 2 * self.count + size // 32  # (A,)
        if bool(many.any()):
            few = ~many[row]  # (N,)
            row, column = row[few], column[few]
        found = indexed_distances(self.rows, tile.rows, which[row], column)  # (N,)
        near = found < limit[row, 0]  # (N,)
        best.insert(which[row[near]], found[near], tile.first + column[near])
        return which[many]

    def _fill(self, score: Tensor, gallery: Tensor, query: Tensor) -> float:
        """Write the scores ``q.g - |g|^2 / 2`` of a tile ``(T, D)``, and bound the length of its rows.

        A few rows at a time stay in the cache between their norms and their products.
        """
        lowest = []
        step = max(1, _CACHED // max(1, gallery.shape[1]))
        for first in range(0, len(gallery), step):
            rows = self._shift(gallery[first : first + step], query.dtype)
            half = torch.linalg.vector_norm(rows, dim=1).square_().div_(-2)
            products(query, rows, half, out=score[:, first : first + len(rows)])
            lowest.append(half.min())
        return math.sqrt(-2.02 * float(torch.stack(lowest).min()) + gallery.shape[1] * 2.0**-120)

    def _candidates(self, score: Tensor, edge: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """Find the scores ``(A, T)`` that may be among the K highest and reach ``edge`` ``(A, 1)``: rows and columns.

        Only segments whose maximum reaches the edge are read again.
        """
        segments = score.view(-1, _SEGMENT)  # (A * S, W)
        peaks = segments.amax(dim=1).view(len(score), -1)  # (A, S)
        reach = peaks >= edge  # (A, S)
        crowded = (reach.sum(dim=1) >= min(self.count + 1, peaks.shape[1])).nonzero()[:, 0]
        if len(crowded):
            # At least K scores reach the K-th highest peak; among few peaks it is far below the K-th highest score.
            high = peaks if peaks.shape[1] >= 4 * self.count else score
            kth = high[crowded].topk(min(self.count, high.shape[1]), dim=1).values[:, -1:].double()
            edge[crowded] = torch.maximum(edge[crowded], _below(kth - 2 * bound[crowded], edge.dtype))
            reach = peaks >= edge
        active = reach.flatten().nonzero()[:, 0]
        owner = active // peaks.shape[1]
        values = segments.index_select(0, active)  # (active segments, W)
        segment, column = (values >= edge[owner]).nonzero(as_tuple=True)  # (N,), (N,)
        return owner[segment], (active % peaks.shape[1])[segment] * _SEGMENT + column


def _whole(size: int) -> int:
    """Round a number of columns up to whole segments."""
    return -(-size // _SEGMENT) * _SEGMENT


def _below(edge: Tensor, dtype: torch.dtype) -> Tensor:
    """Round edges ``(A, 1)`` down to a type, but to no less than its lowest finite number."""
    rounded = edge.to(dtype)
    return torch.nextafter(rounded, torch.full_like(rounded, -torch.inf)).clamp_(min=torch.finfo(dtype).min)


def _check_rows(rows: Tensor, first: int) -> None:
    """Reject a tile ``(T, D)`` that starts at position ``first`` and has NaN, infinity or too long a row."""
    bad = nonfinite_rows(rows)
    if len(bad):
        raise UserError(f"gallery: expected finite numbers, got NaN or infinity in row {first + int(bad[0])}")
    if not float(torch.linalg.vector_norm(rows.double(), dim=1).max()) < _LARGEST:
        raise _too_large("gallery", rows)


def _too_large(name: str, rows: Tensor) -> UserError:
    return UserError(f"{name}: expected numbers below 1e150, got {float(rows.abs().max()):.3g}")
