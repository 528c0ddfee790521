"""Exact k nearest neighbours in a gallery that may be memory-mapped.

The gallery is read tile by tile. A float32 product of queries and tile bounds every distance from below; only items
that may be among the nearest are measured by the definition in :mod:`~metric_module.evaluation.exact.rounding`. If
these are too many for a query, float64 products decide, and after them the distances of the whole tile.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = items in a tile, D = embedding size, K = neighbours,
S = segments of a row of scores, W = columns in a segment, N = candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance, EuclideanForm
from metric_module.distances.base import Measure
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance, form_or_copy
from metric_module.evaluation.exact.rounding import all_distances, indexed_distances, products, rounding
from metric_module.evaluation.exact.running_best import Nearest, join
from metric_module.evaluation.exact.threads import in_threads
from metric_module.functional import float64_device, full_precision, nonfinite_rows

_QUERIES = 128  # queries in a block
_NUMBERS = 1 << 21  # scores in a block of queries and a tile, and numbers in a tile
_SMALL = 2048  # items in a tile for a distance that may need memory for every pair and coordinate
_SEGMENT = 256  # most columns of scores that share a maximum
_LARGEST = 2.0**500  # a longer row's square overflows float64


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
    parts = [part.detach() for part in ([gallery] if isinstance(gallery, Tensor) else gallery)]
    check_embeddings("queries", query, parts[0].shape[1] if parts else None)
    device = float64_device(query.device)
    rows, count = query.detach().to(device), min(k, sum(map(len, parts)))  # (Q, D)
    if not count or not len(rows):
        return Nearest.none(len(rows), count, query.device)
    skipped = torch.full((len(rows),), -1, device=device) if exclude is None else exclude.to(device)  # (Q,)
    with full_precision(device.type), torch.no_grad():
        chosen = form_or_copy(distance, device)
        form = chosen if isinstance(chosen, EuclideanForm) else None
        measure = exact_distance(distance, device) if form is None else all_distances
        queries = max(1, min(_QUERIES, len(rows), _NUMBERS // (4 * count)))  # A
        size = max(4 * count, min(_NUMBERS // max(queries, rows.shape[1]), _NUMBERS if form else _SMALL))  # T
        tiles = [tile for part in parts if len(part) for tile in torch.split(part, size)]
        blocks = zip(torch.split(rows, queries), torch.split(skipped, queries), strict=True)
        found = [_Search(block, left_out, count, form, measure).over(tiles) for block, left_out in blocks]
    return Nearest(*(torch.cat(part).to(query.device) for part in zip(*found, strict=True)))


@dataclass
class _Search:
    """Search for a block of queries ``(A, D)``, which leaves out the positions ``skipped`` ``(A,)``."""

    rows: Tensor
    skipped: Tensor
    count: int
    form: EuclideanForm | None
    measure: Measure

    def __post_init__(self) -> None:
        self.rows = self.rows.double() if self.form is None else self.form.map(self.rows)
        _check_rows("queries", self.rows, 0)
        self._norm = torch.linalg.vector_norm(self.rows.double(), dim=1, keepdim=True)  # (A, 1)

    def over(self, tiles: Sequence[Tensor]) -> Nearest:
        """Search all tiles, in as many threads as torch may use; each takes the next tile, so that none waits."""
        firsts = torch.tensor([0, *map(len, tiles)]).cumsum(0).tolist()
        queue = iter(list(zip(tiles, firsts[:-1], strict=True)))
        workers = torch.get_num_threads() if self.rows.device.type == "cpu" else 1
        size = max(map(len, tiles)) + _SEGMENT
        found = join(in_threads(lambda _: self._work(queue, size), range(min(workers, len(tiles)))), self.count)
        return found if self.form is None else Nearest(self.form.of(found.distances), found.positions)

    def _work(self, queue: Iterator[tuple[Tensor, int]], size: int) -> Nearest:
        best = Nearest.none(len(self.rows), self.count, self.rows.device)
        # Scores of every tile go to the same memory: new memory would be mapped and cleared each time.
        memory = torch.empty(len(self.rows) * size, device=self.rows.device)
        for tile, first in queue:
            self._visit(best, tile.to(self.rows.device), first, memory)
        return best

    def _visit(self, best: Nearest, tile: Tensor, first: int, memory: Tensor) -> None:
        """Insert the items of a tile ``(T, D)`` that are nearer than those found before."""
        if self.form is None or self.form.rows is not None:
            _check_rows("gallery", tile, first)
        mapped = tile.double() if self.form is None else self.form.map(tile)  # (T, D)
        which = torch.arange(len(self.rows), device=self.rows.device)  # (A,)
        for dtype in () if self.form is None else (torch.float32, torch.float64):
            pairs = self._candidates(best, mapped, which, memory.to(dtype))
            if pairs is not None:
                row, column = pairs  # (N,), (N,)
                many = torch.bincount(row, minlength=len(which)) > 2 * self.count + len(tile) // 32  # (A,)
                few = ~many[row]  # (N,)
                row, column = which[row[few]], column[few]
                self._insert(best, row, first + column, indexed_distances(self.rows, mapped, row, column))
                which = which[many]
            if not len(which):
                return
        _check_rows("gallery", tile, first)
        self._measure_all(best, mapped, first, which)

    def _measure_all(self, best: Nearest, tile: Tensor, first: int, which: Tensor) -> None:
        """Insert the nearer items for some queries from the distances of all pairs."""
        found = self.measure(self.rows[which], tile)  # (A, T)
        row, column = (found < best.distances[which, -1:]).nonzero(as_tuple=True)  # (N,), (N,)
        self._insert(best, which[row], first + column, found[row, column])

    def _insert(self, best: Nearest, row: Tensor, position: Tensor, distance: Tensor) -> None:
        near = (distance < best.distances[row, -1]) & (position != self.skipped[row])  # (N,)
        best.insert(row[near], distance[near], position[near])

    def _candidates(self, best: Nearest, tile: Tensor, which: Tensor, memory: Tensor) -> tuple[Tensor, Tensor] | None:
        """Find the pairs that may be among the nearest, by products in the type of ``memory``, which is overwritten.

        Returns:
            Places in ``which``, ascending, and rows of the tile, int64 ``(N,)``; None if the products overflow.
        """
        dtype, width = memory.dtype, tile.shape[1]
        segments = -(-len(tile) // _SEGMENT)  # S
        score = memory[: len(which) * segments * _SEGMENT].view(len(which), -1)  # (A, S * W)
        score[:, len(tile) :] = -torch.inf
        wide, norm = tile.to(dtype), self._norm[which]  # (T, D), (A, 1)
        half = torch.linalg.vector_norm(wide, dim=1).square_().div_(-2)  # (T,)
        longest = math.sqrt(-2.02 * float(half.min()) + width * 2.0**-120)
        if not (longest + float(norm.max())) ** 2 < torch.finfo(dtype).max / 8:  # NaN too
            return None
        products(self.rows[which].to(dtype), wide, half, out=score[:, : len(tile)])
        bound = rounding(norm, torch.tensor(longest, dtype=torch.float64), width, dtype)  # (A, 1)
        bound += (width + 4) * torch.finfo(dtype).eps * longest**2 / 4  # half of the squared norms is a rounded sum
        peaks = score.view(len(which), segments, _SEGMENT).amax(dim=2)  # (A, S)
        edge = (norm.square() - best.distances[which, -1:].square()) / 2 - bound  # (A, 1)
        crowded = ((peaks >= edge).sum(dim=1) > min(self.count, segments - 1)).nonzero()[:, 0]
        # Among few peaks the K-th is far below the K-th score. One more than K, as one item may be left out.
        high = (peaks if segments >= 4 * self.count + 1 else score)[crowded]
        kth = high.topk(min(self.count + 1, high.shape[1]), dim=1).values[:, -1:].double()
        edge[crowded] = torch.maximum(edge[crowded], kth - 2 * bound[crowded])
        edge = edge.to(dtype)
        edge = torch.nextafter(edge, torch.full_like(edge, -torch.inf)).clamp_(min=torch.finfo(dtype).min)
        active = (peaks >= edge).flatten().nonzero()[:, 0]
        owner = active // segments
        values = score.view(-1, _SEGMENT).index_select(0, active)  # (active segments, W)
        place, column = (values >= edge[owner]).nonzero(as_tuple=True)  # (N,), (N,)
        return owner[place], (active % segments)[place] * _SEGMENT + column


def _check_rows(name: str, rows: Tensor, first: int) -> None:
    """Reject rows ``(T, D)``, the first at position ``first``, that have NaN, infinity or too large numbers."""
    bad = nonfinite_rows(rows)
    if len(bad):
        raise UserError(f"{name}: expected finite numbers, got NaN or infinity in row {first + int(bad[0])}")
    if not float(torch.linalg.vector_norm(rows.double(), dim=1).max()) < _LARGEST:
        raise UserError(f"{name}: expected numbers below 1e150, got {float(rows.abs().max()):.3g}")
