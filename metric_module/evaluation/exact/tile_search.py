"""Search of a gallery, tile by tile: fast matrix products first, exact distances where a decision is close.

For each query, the nearest items so far are kept with their exact distances. A float32 product of queries and tile
bounds every distance from below; only items that may be among the nearest are measured by the definition in
:mod:`~metric_module.evaluation.exact.rounding`. If these are too many for a query, float64 products decide, and after
them the distances of the whole tile.

Shapes: A = queries in a block, T = items in a tile, D = embedding size, K = neighbours, S = segments of a row of
scores, W = columns in a segment, N = candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import EuclideanForm
from metric_module.distances.base import Measure
from metric_module.errors import UserError
from metric_module.evaluation.exact.rounding import all_distances, indexed_distances, products, rounding
from metric_module.evaluation.exact.running_best import Nearest, join
from metric_module.evaluation.exact.threads import in_threads
from metric_module.functional import nonfinite_rows

_CACHED = 1 << 19  # numbers of the gallery that stay in the cache
_SEGMENT = 256
_LARGEST = 2.0**500  # a longer row's square overflows float64


class Tile(NamedTuple):
    """Consecutive rows of a gallery."""

    rows: Tensor  # (T, D)
    first: int  # position of the first row


def whole_segments(size: int) -> int:
    """Round a number of columns up to whole segments."""
    return -(-size // _SEGMENT) * _SEGMENT


@dataclass
class TileSearch:
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

    def over(self, tiles: Sequence[Tile]) -> Nearest:
        """Search all tiles, in as many threads as torch may use."""
        workers = torch.get_num_threads() if self.rows.device.type == "cpu" else 1
        size = whole_segments(max(len(tile.rows) for tile in tiles))
        queue = iter(tiles)  # each thread takes the next tile, so that none waits for a slow one
        return join(in_threads(lambda _: self._over_some(queue, size), range(min(workers, len(tiles)))), self.count)

    def _over_some(self, tiles: Iterator[Tile], size: int) -> Nearest:
        best = Nearest.none(len(self.rows), self.count, self.rows.device)
        # Scores of every tile go to the same memory: new memory would be mapped and cleared each time.
        scores = torch.empty(len(self.rows), size, device=self.rows.device)  # (A, T)
        for rows, first in tiles:
            self.visit(best, Tile(rows.to(self.rows.device), first), scores)
        return best

    def visit(self, best: Nearest, tile: Tile, scores: Tensor) -> None:
        """Insert the items of a tile that are nearer than those found before."""
        _check_rows(tile.rows.double(), tile.first)
        self.visit_all(best, tile._replace(rows=tile.rows.double()), torch.arange(len(self.rows)))

    def visit_all(self, best: Nearest, tile: Tile, which: Tensor) -> None:
        """Do so for some queries ``(A,)`` from the distances of all pairs."""
        found = self.measure(self.rows[which], tile.rows)  # (A, T)
        self._leave_out(found, tile, which, torch.inf)
        kth = found.topk(min(self.count, found.shape[1]), dim=1, largest=False).values[:, -1:]  # (A, 1)
        tied = found == kth  # (A, T)
        near = (found < kth) | (tied & (tied.cumsum(dim=1) <= self.count))  # (A, T)
        row, column = (near & (found < best.distances[which, -1:])).nonzero(as_tuple=True)  # (N,), (N,)
        best.insert(which[row], found[row, column], tile.first + column)

    def _leave_out(self, values: Tensor, tile: Tile, which: Tensor, value: float) -> None:
        """Set the values ``(A, T)`` of pairs that are left out."""
        if self.skipped is None:
            return
        column = self.skipped[which] - tile.first  # (A,)
        row = ((column >= 0) & (column < len(tile.rows))).nonzero()[:, 0]
        if len(row):
            values[row, column[row]] = value


class ProductSearch(TileSearch):
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

    def over(self, tiles: Sequence[Tile]) -> Nearest:
        """Search all tiles, in as many threads as torch may use."""
        found = super().over(tiles)
        return Nearest(self._form.of(found.distances), found.positions)

    def visit(self, best: Nearest, tile: Tile, scores: Tensor) -> None:
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

    def _visit_some(self, best: Nearest, tile: Tile, which: Tensor, scores: Tensor) -> Tensor:
        """Insert the nearer items of a tile by products in the type of ``scores``, which are overwritten.

        Returns:
            The queries, int64, for which these leave too many items undecided; nothing was inserted for them.
        """
        dtype, width, size = scores.dtype, tile.rows.shape[1], len(tile.rows)
        score = scores.flatten()[: len(which) * whole_segments(size)].view(
            len(which), -1
        )  # (A, T) padded to whole segments
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
