"""Retrieval of classes: how early a query finds the other items of its class.

Shapes: Q = queries, M = gallery items, A = queries in a block, K = most positives of a query, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm
from metric_module.errors import NotComputableError
from metric_module.evaluation.exact.any_distance import CustomRanks, form_or_copy
from metric_module.evaluation.exact.euclidean_ranks import EuclideanRanks
from metric_module.evaluation.exact.matches import Matches
from metric_module.evaluation.inputs import Items, check_cutoffs, check_sides
from metric_module.evaluation.queries import mean, measure_blocks, rank_positives, row_sums
from metric_module.functional import full_precision

QUERIES_AT_ONCE = 1024
CELLS_AT_ONCE = 1 << 22


class PerQuery(NamedTuple):
    """Figures of each query that has a positive, in order of row, on the CPU."""

    rows: Tensor  # (Q,) rows of the queries, int64
    first: Tensor  # (Q,) rank of the nearest positive, int64
    r_precision: Tensor  # (Q,) float64
    map_at_r: Tensor  # (Q,) float64
    map: Tensor  # (Q,) float64


Ranks = Callable[[Tensor], EuclideanRanks | CustomRanks]
"""Makes, for the row of the gallery at each sorted column, what counts the items within the distance of a positive."""

_EMPTY = torch.empty(0, dtype=torch.float64)
_NO_QUERY = PerQuery(_EMPTY.long(), _EMPTY.long(), _EMPTY, _EMPTY, _EMPTY)


def retrieval_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    gallery_ids: Tensor | None = None,
    groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    distance: Distance | None = None,
    recall_at: Sequence[int] = (1, 5, 10),
    all_ranks: bool = True,
) -> dict[str, float]:
    r"""Measure how early each query finds the other items of its class.

    A query has R positives: the gallery items of its class other than itself. With the positives in order of distance,
    the j-th has ``rank_j = j + #{items of other classes at its distance or closer}``: a tie is a miss. Then

    - ``recall_at_k`` = mean over queries of ``[rank_1 <= k]``
    - ``r_precision`` = mean of ``#{j : rank_j <= R} / R``
    - ``map_at_r`` = mean of ``1/R sum of j / rank_j over rank_j <= R``
    - ``map`` = mean of ``1/R sum of j / rank_j``, and ``mrr`` = mean of ``1 / rank_1``.

    R-precision and MAP@R are those of Musgrave, Belongie and Lim, "A Metric Learning Reality Check" (ECCV 2020), which
    leaves ties open. Queries without a positive are left out and counted.

    Under ``Euclidean``, ``SquaredEuclidean`` and ``Cosine`` the figures are those of float64 distances, one pair at a
    time, and the same to the last bit for any order of rows; under any other distance see
    :class:`~metric_module.evaluation.exact.any_distance.CustomRanks`.
    Memory is O((Q + M) D), whatever the number of pairs.

    Args:
        embeddings: Queries ``(Q, D)``, floating point. Without a gallery they are their own.
        labels: Integers ``(Q,)``.
        ids: Integers ``(Q,)``, one per sample: an item with the query's id is the query itself, and left out. Without a
            gallery the default is the row number; with one, None leaves nothing out.
        gallery: Items to search ``(M, D)``.
        gallery_labels: Integers ``(M,)``.
        gallery_ids: Integers ``(M,)``.
        groups: Integers ``(Q,)``: an item of the query's class and group is ignored, neither hit nor miss.
        gallery_groups: Integers ``(M,)``.
        distance: The distance; None is Euclidean.
        recall_at: The values of k.
        all_ranks: Whether to count every rank to the end, for ``map`` and ``mrr``; the other figures need less time.

    Returns:
        The figures, in [0, 1], then ``queries``, the number of queries they are averaged over, and
        ``queries_without_positive``.

    Raises:
        UserError: If a shape, type or number is wrong, or no query has a positive.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [1.5], [9.0], [20.0]])
        >>> figures = retrieval_metrics(points, torch.tensor([7, 7, 8, 8, 9]), recall_at=(1, 2))
        >>> {name: round(value, 3) for name, value in figures.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'recall_at_1': 0.5, 'recall_at_2': 0.75, 'r_precision': 0.5, 'map_at_r': 0.5, 'map': 0.708, 'mrr': 0.708,
         'queries': 4.0, 'queries_without_positive': 1.0}
    """
    cutoffs = check_cutoffs(recall_at)
    searched = (gallery, gallery_labels, gallery_ids, gallery_groups)
    query, items = check_sides(Items(embeddings, labels, ids, groups), searched)
    found = measure_queries(query, items, distance, deepest=None if all_ranks else max(cutoffs, default=1))
    return retrieval_means(found, len(labels), cutoffs, groups is not None, all_ranks)


def retrieval_per_query(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    gallery_ids: Tensor | None = None,
    groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    distance: Distance | None = None,
) -> PerQuery:
    """Compute the figures of each query, whose means :func:`retrieval_metrics` returns.

    Args:
        embeddings: Queries ``(Q, D)``, floating point. Without a gallery they are their own.
        labels: Integers ``(Q,)``.
        ids: Integers ``(Q,)``, one per sample: an item with the query's id is left out. Without a gallery the default
            is the row number.
        gallery: Items to search ``(M, D)``.
        gallery_labels: Integers ``(M,)``.
        gallery_ids: Integers ``(M,)``.
        groups: Integers ``(Q,)``: an item of the query's class and group is ignored, neither hit nor miss.
        gallery_groups: Integers ``(M,)``.
        distance: The distance; None is Euclidean.

    Returns:
        Figures of the queries that have a positive, in order of row.

    Raises:
        UserError: If a shape, type or number is wrong.
    """
    searched = (gallery, gallery_labels, gallery_ids, gallery_groups)
    query, items = check_sides(Items(embeddings, labels, ids, groups), searched)
    return measure_queries(query, items, distance)


def measure_queries(
    query: Items,
    gallery: Items,
    distance: Distance | None,
    *,
    shard: tuple[int, int] = (0, 1),
    deepest: int | None = None,
    ranks: Ranks | None = None,
) -> PerQuery:
    """Compute the figures of each query, block by block.

    Args:
        query: The queries, checked.
        gallery: The items to search; the same object if the queries are their own gallery.
        distance: The distance; None is Euclidean.
        shard: ``(rank, world_size)``: measure every world_size-th block of queries, starting with number rank.
        deepest: Do not tell ranks apart that are beyond the number of positives and beyond this: ``first`` may then be
            too small there, and ``map`` is of no use. None counts every rank to the end.
        ranks: How the items within the distance of a positive are counted; None: by the distance.

    Returns:
        Figures of the queries of this shard that have a positive.
    """
    with torch.no_grad(), full_precision(query.embeddings.device.type):
        matches = Matches(query, gallery)
        counted = ranks or partial(exact_ranks, query.embeddings, gallery.embeddings, distance)
        counts = counted(matches.order)
        most = max(1, min(QUERIES_AT_ONCE, CELLS_AT_ONCE // counts.cells_per_query))

        def measure(span: tuple[int, int]) -> list[PerQuery]:
            """Compute the figures of one block."""
            block = matches.block(*span)
            if not len(block.rows):
                return []
            return [_figures(block.rows.cpu(), *(part.cpu() for part in counts.count(block, deepest)))]

        spans = matches.spans(most, CELLS_AT_ONCE // 4)[shard[0] :: shard[1]]
        return measure_blocks(measure, spans, counts.threaded, _NO_QUERY)


def exact_ranks(
    query: Tensor, gallery: Tensor, distance: Distance | None, order: Tensor
) -> EuclideanRanks | CustomRanks:
    """Choose how to count the items within the distance of a positive.

    Args:
        query: Queries ``(Q, D)``.
        gallery: Items ``(M, D)``, the same tensor if the queries are their own gallery.
        distance: The distance; None is Euclidean.
        order: Row of the gallery at each sorted column ``(M,)``.
    """
    form = form_or_copy(distance, query.device)
    if not isinstance(form, EuclideanForm):
        return CustomRanks(form, query, gallery, order)
    rows = form.map(query)  # (Q, E)
    return EuclideanRanks(rows, rows if query is gallery else form.map(gallery), order)


def retrieval_means(
    found: PerQuery, queries: int, recall_at: Sequence[int], grouped: bool, all_ranks: bool = True
) -> dict[str, float]:
    """Average the figures of the queries into those of :func:`retrieval_metrics`.

    Args:
        found: Figures of every query that has a positive.
        queries: Number of queries, those without a positive included.
        recall_at: The values of k.
        grouped: Whether a positive must be of another group.
        all_ranks: Whether every rank was counted to the end.

    Raises:
        UserError: If no query has a positive.
    """
    count = len(found.first)
    if count == 0:
        where = "its class in another group" if grouped else "its class"
        expected = f"a query with another item of {where} in the gallery"
        raise NotComputableError(f"labels: expected {expected}, got none of {queries}")
    values = {f"recall_at_{k}": found.first <= k for k in recall_at}
    values |= {"r_precision": found.r_precision, "map_at_r": found.map_at_r}
    if all_ranks:
        values |= {"map": found.map, "mrr": found.first.double().reciprocal()}
    means = {name: mean(of_queries) for name, of_queries in values.items()}
    return means | {"queries": float(count), "queries_without_positive": float(queries - count)}


def _figures(rows: Tensor, sizes: Tensor, closer: Tensor) -> PerQuery:
    """Compute the figures of queries ``(A,)`` from the numbers of misses before each of their positives ``(A, K)``."""
    rank, precision = rank_positives(sizes, closer)  # (A, K), (A, K)
    within = rank <= sizes[:, None]  # (A, K)
    near = row_sums(precision.where(within, 0.0)) / sizes  # (A,)
    return PerQuery(rows, rank[:, 0], within.sum(dim=1) / sizes.double(), near, row_sums(precision) / sizes)
