"""Exact ranks under Euclidean distance: fast matrix products first, exact distances where a decision is close.

The distance of a pair is defined here as the result of :func:`pair_distances`: float64, from differences, one pair at a
time. The score ``q.g - |g|^2 / 2`` from a matrix product orders the gallery in the same way, up to a bound on its
rounding error. An item whose score is within this bound of a positive's is undecided: its distance is computed by the
definition, so that no figure depends on how the products were blocked. If too many items are undecided, float32
products are replaced by float64 products, and those by the distances of all pairs.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = columns in a tile, D = embedding size,
K = largest number of positives of a query, W = columns in a segment of a row, S = segments that are read again,
P = segments with an undecided item, for each query and positive, p = those of one step, N = undecided items.
"""

from __future__ import annotations

from functools import cached_property
from threading import RLock
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.evaluation.exact.counting import count_at_least
from metric_module.evaluation.exact.matches import Block, Listed, nearest_first, own_class
from metric_module.evaluation.exact.rounding import (
    all_distances,
    indexed_distances,
    outward,
    products,
    rescale,
    rounding,
)

_CELLS_AT_ONCE = 1 << 18  # about the size of a cache
_TILE = 2048  # columns in a tile for queries with few positives; a multiple of _SEGMENT
_SEGMENT = 256
_MANY = 24  # from this many positives on, sorted rows of float64 products are cheaper than comparisons


class _Rows(NamedTuple):
    rows: Tensor  # (M', D) the sorted gallery minus its mean, padded with zeros to whole segments
    half: Tensor  # (M',) minus half of the squared norms, minus infinity for padding
    norm: Tensor  # (M',) norms, float64


class _Queries(NamedTuple):
    rows: Tensor  # (A, D)
    centred: Tensor  # (A, D) minus the mean of the gallery, float64
    limit: Tensor  # (A, K) distances of the positives, ascending, padded with infinity; float64
    start: Tensor  # (A,) first column of the query's class
    stop: Tensor  # (A,) one past its last

    def take(self, which: Tensor | slice) -> _Queries:
        """Select some of the queries."""
        return _Queries(*(part[which] for part in self))


def _enough(sizes: Tensor, most: int, deepest: int) -> Tensor:
    """Compute the counts ``(A, K)`` at which counting may stop, because the rank affects no figure any more.

    These are the counts at which the k-th nearest positive has a rank beyond the number of positives; for the nearest
    positive, also beyond ``deepest``.
    """
    enough = (sizes[:, None] - torch.arange(most, device=sizes.device)).clamp(min=1)  # (A, K)
    enough[:, 0].clamp_(min=deepest)
    return enough


class EuclideanRanks:
    """Counts of other classes' items within the distance of each positive.

    Args:
        query: Queries ``(Q, D)``, float32 or float64.
        gallery: Gallery ``(M, D)``.
        order: Row of the gallery at each sorted column ``(M,)``.

    Attributes:
        threaded: Whether several threads may count blocks at once.
        cells_per_query: Matrix cells in memory for each query of a block; only 1, as the gallery is read in tiles.
    """

    def __init__(self, query: Tensor, gallery: Tensor, order: Tensor) -> None:
        self._query, self._gallery = rescale(query, gallery)
        self._order = order
        self.threaded = query.device.type == "cpu"
        self.cells_per_query = 1
        self._center = self._gallery.mean(dim=0, dtype=torch.float64)  # (D,)
        self._prepared: dict[torch.dtype, _Rows] = {}
        self._lock = RLock()

    def count(self, block: Block, deepest: int | None = None) -> tuple[Tensor, Tensor]:
        """Count the items of other classes that are at least as close as each positive.

        Args:
            block: The queries.
            deepest: The deepest rank of interest for the nearest positive. Counting stops for a positive once its rank
                exceeds the query's number of positives and, for the nearest one, this rank too. None counts to the end.

        Returns:
            For the positives of each query, nearest first: their number ``(A,)``, and how many items of other classes
            are at their distance or closer ``(A, K)``, a lower bound where counting stopped. Both int64.
        """
        rows = self._query.index_select(0, block.rows)  # (A, D)
        limit = nearest_first(self._own_distances(rows, block), block.positive)  # (A, K)
        sizes = block.positive.sum(dim=1)  # (A,)
        enough = None if deepest is None else _enough(sizes, limit.shape[1], deepest)  # (A, K)
        queries = _Queries(rows, rows.double() - self._center, limit, block.start, block.stop)
        return sizes, self._count(queries, enough)

    def count_listed(self, block: Listed) -> Tensor:
        """Count the items in neither list of the query that are at least as close as each positive.

        Args:
            block: The queries, and their positive and ignored items. The gallery is not sorted.

        Returns:
            For the positives of each query, nearest first, how many unlisted items are at their distance or closer,
            int64 ``(A, K)``; undefined in the padding of a query with fewer than K positives.
        """
        rows = self._query.index_select(0, block.rows)  # (A, D)
        listed = self._listed_distances(rows, *block.positive), self._listed_distances(rows, *block.ignored)
        limit, ignored = (distances.sort(dim=1).values for distances in listed)  # (A, K), (A, I)
        zero = torch.zeros_like(block.rows)  # start and stop of an empty class: no column is masked
        queries = _Queries(rows, rows.double() - self._center, limit, zero, zero)
        listed_closer = count_at_least(torch.cat([limit, ignored], dim=1).neg_(), -limit)  # (A, K)
        return (self._count(queries, None) - listed_closer).clamp_(min=0)

    def _count(self, queries: _Queries, enough: Tensor | None) -> Tensor:
        """Count the items of other classes within each limit, int64 ``(A, K)``, or up to ``enough`` if given."""
        rows, limit = queries.rows, queries.limit
        few = limit.shape[1] < _MANY
        dtype = torch.float32 if few else torch.float64
        size = len(self._rows(dtype).rows)
        tile = _TILE if few else min(size, max(_TILE, (1 << 22) // len(rows) // _SEGMENT * _SEGMENT))
        counts = torch.zeros(limit.shape, dtype=torch.int64, device=limit.device)  # (A, K)
        for first in range(0, size, tile):
            width = queries.limit.shape[1]
            counts[:, :width] += self._count_tile(queries, dtype, first, min(first + tile, size))
            if enough is not None:
                limit = limit.masked_fill(counts >= enough, torch.inf)
                width = int(limit.isfinite().any(dim=0).sum())  # the nearest positives stop last
                if not width:
                    break
                queries = queries._replace(limit=limit[:, :width])
        return counts

    def _count_tile(self, queries: _Queries, dtype: torch.dtype, first: int, last: int) -> Tensor:
        """Count ``(A, K)`` in the columns from ``first`` to ``last - 1``, from products in one type."""
        gallery, limit = self._rows(dtype), queries.limit
        score = products(queries.centred.to(dtype), gallery.rows[first:last], gallery.half[first:last])  # (A, T)
        mask = own_class(queries.start, queries.stop, first, last)  # (A, T)
        if mask is not None:
            score.masked_fill_(mask, -torch.inf)  # (A, T)
        squared = queries.centred.square().sum(dim=1, keepdim=True)  # (A, 1)
        bound = rounding(squared.sqrt(), gallery.norm[first:last].max(), gallery.rows.shape[1], dtype)  # (A, 1)
        target = (squared - limit.square()) / 2  # (A, K)
        above = outward(target + bound, limit, dtype, torch.inf)  # (A, K) from this score on: within the limit
        below = outward(target - bound, limit, dtype, -torch.inf)  # (A, K) under this score: beyond the limit
        counts = torch.empty(limit.shape, dtype=torch.int64, device=limit.device)  # (A, K)
        step = max(1, _CELLS_AT_ONCE // (last - first))
        for start in range(0, len(score), step):
            part = slice(start, start + step)
            counts[part] = self._count_scores(queries.take(part), score[part], above[part], below[part], first)
        return counts

    def _count_scores(self, queries: _Queries, score: Tensor, above: Tensor, below: Tensor, first: int) -> Tensor:
        """Count ``(A, K)`` from scores ``(A, T)``.

        A score from ``above`` on counts, one under ``below`` does not, and one between them is undecided. Only segments
        whose maximum reaches ``below`` for some positive are read again.
        """
        width = _SEGMENT if above.shape[1] < _MANY else score.shape[1]
        segments = score.view(-1, width)  # (A * T / W, W)
        peaks = segments.amax(dim=1).view(len(score), -1)  # (A, T / W)
        active = (peaks >= below.amin(dim=1, keepdim=True)).flatten().nonzero().flatten()  # (S,)
        owner = active // peaks.shape[1]  # (S,)
        values = segments if len(active) == len(segments) else segments.index_select(0, active)  # (S, W)
        edges = torch.cat([above, below], dim=1).index_select(0, owner)  # (S, 2 K)
        sure, maybe = count_at_least(values, edges).chunk(2, dim=1)  # (S, K) each
        counts = torch.zeros(above.shape, dtype=torch.int64, device=above.device)  # (A, K)
        counts.index_add_(0, owner, sure)
        undecided = counts.new_zeros(len(score)).index_add_(0, owner, (maybe - sure).sum(dim=1))  # (A,)
        most = score.shape[1] // 32 if above.shape[1] < _MANY else 0
        too_many = undecided > most  # (A,)
        recounted = too_many.nonzero().flatten()
        if len(recounted):
            counts[recounted] = self._count_again(queries.take(recounted), score.dtype, first, first + score.shape[1])
        segment, slot = ((maybe > sure) & ~too_many[owner, None]).nonzero(as_tuple=True)  # (P,), (P,)
        step = max(1, 4 * _CELLS_AT_ONCE // width)
        for start in range(0, len(segment), step):
            s, k = segment[start : start + step], slot[start : start + step]
            row, scores = owner[s], values.index_select(0, s)  # (p,), (p, W)
            between = (scores >= below[row, k, None]) & (scores < above[row, k, None])  # (p, W)
            pair, column = between.nonzero(as_tuple=True)  # (N,), (N,)
            row, k, column = row[pair], k[pair], first + (active[s] % peaks.shape[1])[pair] * width + column
            close = self._pairs(queries.rows, row, column) <= queries.limit[row, k]  # (N,)
            counts.index_put_((row, k), close.long(), accumulate=True)
        return counts

    def _count_again(self, queries: _Queries, dtype: torch.dtype, first: int, last: int) -> Tensor:
        """Count ``(A, K)`` by the next more precise method: float64 products after float32, then exact distances."""
        if dtype == torch.float32:
            return self._count_tile(queries, torch.float64, first, last)
        last = min(last, len(self._order))
        with self._lock:
            columns = self._representatives[first:last]  # (T,)
        # Equal rows are measured once; U is the number of different ones.
        distinct, inverse = torch.unique(columns, return_inverse=True)  # (U,), (T,)
        gallery = self._gallery.index_select(0, self._order[distinct])  # (U, D)
        distances = all_distances(queries.rows, gallery).index_select(1, inverse)  # (A, T)
        mask = own_class(queries.start, queries.stop, first, last)  # (A, T)
        if mask is not None:
            distances.masked_fill_(mask, torch.inf)
        limit = torch.where(queries.limit.isinf(), -torch.inf, queries.limit)  # (A, K), nothing is within padding
        return count_at_least(distances.neg_(), -limit)

    def _own_distances(self, query: Tensor, block: Block) -> Tensor:
        """Compute the distances ``(A, L)`` from each query to the items of its class."""
        first, last = int(block.start.min()), int(block.stop.max())
        if last - first > 4 * block.columns.shape[1]:
            rows = torch.arange(len(query), device=query.device)[:, None].expand_as(block.columns)
            return self._pairs(query, rows.flatten(), block.columns.flatten()).view_as(rows)
        distances = all_distances(query, self._gallery.index_select(0, self._order[first:last]))  # (A, last - first)
        return distances.gather(1, block.columns - first)

    def _listed_distances(self, query: Tensor, columns: Tensor, valid: Tensor) -> Tensor:
        """Compute the distances ``(A, K)`` to listed items, infinite where the list is padded."""
        distances = torch.full(valid.shape, torch.inf, dtype=torch.float64, device=query.device)
        distances[valid] = self._pairs(query, valid.nonzero()[:, 0], columns[valid])
        return distances

    def _pairs(self, query: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Compute the distances ``(N,)`` of pairs of a row of ``query`` and a sorted column."""
        return indexed_distances(query, self._gallery, rows, self._order[columns])

    def _rows(self, dtype: torch.dtype) -> _Rows:
        """Return the sorted gallery for products of one type, prepared on first use."""
        with self._lock:
            if dtype not in self._prepared:
                self._prepared[dtype] = self._prepare(dtype)
            return self._prepared[dtype]

    def _prepare(self, dtype: torch.dtype) -> _Rows:
        """Sort the gallery, subtract its mean, and pad it to whole segments."""
        size = -(-len(self._order) // _SEGMENT) * _SEGMENT
        rows = torch.zeros(size, self._gallery.shape[1], dtype=dtype, device=self._gallery.device)  # (M', D)
        norm = torch.zeros(size, dtype=torch.float64, device=rows.device)  # (M',)
        for first in range(0, len(self._order), _TILE):
            order = self._order[first : first + _TILE]
            centred = self._gallery.index_select(0, order).double() - self._center  # (T, D)
            rows[first : first + len(order)] = centred
            norm[first : first + len(order)] = torch.linalg.vector_norm(centred, dim=1)
        half = (norm.square() / -2).to(dtype)  # (M',)
        half[len(self._order) :] = -torch.inf
        return _Rows(rows, half, norm)

    @cached_property
    def _representatives(self) -> Tensor:
        """For each sorted column ``(M,)``, the one column that represents all gallery rows equal to its own."""
        inverse = torch.unique(self._gallery, dim=0, return_inverse=True)[1][self._order]  # (M,)
        chosen = torch.empty_like(inverse)
        chosen[inverse] = torch.arange(len(inverse), device=inverse.device)
        return chosen[inverse]
