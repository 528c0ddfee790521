"""Retrieval figures: how early a query finds the other items of its class.

Shapes: Q = queries, M = gallery items, A = queries in a block, K = most positives of a query, D = embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import CustomRanks, form_or_copy
from metric_module.evaluation.exact.euclidean_ranks import EuclideanRanks
from metric_module.evaluation.exact.matches import Matches
from metric_module.evaluation.exact.threads import in_threads
from metric_module.evaluation.inputs import Items, check_cutoffs, check_items, check_pair, to_device
from metric_module.functional import full_precision

QUERIES_AT_ONCE = 1024
CELLS_AT_ONCE = 1 << 22


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
    r"""How early each query finds the other items of its class.

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
        all_ranks: Whether to count every rank to the end, for ``map`` and ``mrr``; the others need less.

    Returns:
        The figures, in [0, 1], then ``queries``, how many they are a mean over, and ``queries_without_positive``.

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
    found = retrieval_per_query(
        embeddings,
        labels,
        ids,
        gallery=gallery,
        gallery_labels=gallery_labels,
        gallery_ids=gallery_ids,
        groups=groups,
        gallery_groups=gallery_groups,
        distance=distance,
        deepest=None if all_ranks else max(cutoffs, default=1),
    )
    return retrieval_means(found, len(labels), cutoffs, groups is not None, all_ranks)


class PerQuery(NamedTuple):
    """Figures of each query that has a positive, on the CPU."""

    rows: Tensor  # (Q,) which queries these are, int64
    first: Tensor  # (Q,) rank of the nearest positive, int64
    r_precision: Tensor  # (Q,) float64
    map_at_r: Tensor  # (Q,) float64
    map: Tensor  # (Q,) float64


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
    share: tuple[int, int] = (0, 1),
    deepest: int | None = None,
) -> PerQuery:
    """What :func:`retrieval_metrics` takes the means of.

    Args:
        embeddings: As there, and so are the others up to ``distance``.
        labels: As there.
        ids: As there.
        gallery: As there.
        gallery_labels: As there.
        gallery_ids: As there.
        groups: As there.
        gallery_groups: As there.
        distance: As there.
        share: Rank r and number of ranks W: look at every W-th block of queries, from the r-th on.
        deepest: Do not tell ranks apart that are beyond the number of positives and beyond this: ``first`` may then be
            too small there, and ``map`` is of no use. None counts every rank to the end.

    Returns:
        Figures of the queries of this share that have a positive, in order of their rows.

    Raises:
        UserError: If a shape, type or number is wrong.
    """
    query = check_items(embeddings, labels, ids, groups)
    if gallery is None or gallery_labels is None:
        given = {"gallery": gallery, "gallery_labels": gallery_labels}
        given |= {"gallery_ids": gallery_ids, "gallery_groups": gallery_groups}
        _reject_half_a_gallery([name for name, value in given.items() if value is not None])
        rows = torch.arange(len(query.labels), device=query.labels.device)
        query = items = query if ids is not None else query._replace(ids=rows)
    else:
        items = check_items(gallery, gallery_labels, gallery_ids, gallery_groups, prefix="gallery_")
        items = to_device(items, query.embeddings.device)
    check_pair(query, items)
    with torch.no_grad(), full_precision(query.embeddings.device.type):
        found = _measure(query, items, distance, share, deepest)
    order = found.rows.argsort()
    return PerQuery(*(part[order] for part in found))


_EMPTY = torch.empty(0, dtype=torch.float64)
_NOTHING = PerQuery(_EMPTY.long(), _EMPTY.long(), _EMPTY, _EMPTY, _EMPTY)


def _measure(
    query: Items, gallery: Items, distance: Distance | None, share: tuple[int, int], deepest: int | None
) -> PerQuery:
    """Figures of each query, block by block."""
    matches = Matches(query, gallery)
    ranks = exact_ranks(query.embeddings, gallery.embeddings, distance, matches.order)
    queries = QUERIES_AT_ONCE
    if isinstance(ranks, CustomRanks):
        queries = max(1, min(queries, CELLS_AT_ONCE // max(1, len(gallery.labels))))
    spans = matches.spans(queries, CELLS_AT_ONCE // 4)[share[0] :: share[1]]

    def measure(span: tuple[int, int]) -> PerQuery:
        """Figures of one block."""
        block = matches.block(*span)
        if not len(block.rows):
            return _NOTHING
        return _figures(block.rows.cpu(), *(part.cpu() for part in ranks.count(block, deepest)))

    own = isinstance(ranks, EuclideanRanks) and query.embeddings.device.type == "cpu"
    parts = in_threads(measure, spans) if own else [measure(span) for span in spans]
    return PerQuery(*(torch.cat(part) for part in zip(_NOTHING, *parts, strict=True)))


def exact_ranks(
    query: Tensor, gallery: Tensor, distance: Distance | None, order: Tensor
) -> EuclideanRanks | CustomRanks:
    """What counts the items within the distance of a positive.

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


def _figures(rows: Tensor, sizes: Tensor, closer: Tensor) -> PerQuery:
    """Figures of queries ``(A,)`` from the numbers of positives ``(A,)`` and of misses before each ``(A, K)``."""
    slot = torch.arange(1, closer.shape[1] + 1)  # (K,)
    rank = closer + slot  # (A, K)
    real = slot <= sizes[:, None]  # (A, K)
    precision = torch.where(real, slot.double() / rank, 0.0)  # (A, K)
    within = real & (rank <= sizes[:, None])  # (A, K)
    # A running sum adds from left to right, so that the padding of a block does not change the rounding.
    total = precision.cumsum(dim=1)[:, -1]  # (A,)
    near = precision.where(within, 0.0).cumsum(dim=1)[:, -1]  # (A,)
    return PerQuery(rows, rank[:, 0], within.sum(dim=1) / sizes.double(), near / sizes, total / sizes)


def retrieval_means(
    found: PerQuery, queries: int, recall_at: Sequence[int], grouped: bool, all_ranks: bool = True
) -> dict[str, float]:
    """The figures of :func:`retrieval_metrics` from those of each query.

    Args:
        found: Of every query that has a positive.
        queries: How many queries there are, with those that have none.
        recall_at: The values of k.
        grouped: Whether a positive must be of another group.
        all_ranks: Whether every rank was counted to the end.

    Raises:
        UserError: If no query has a positive.
    """
    count = len(found.first)
    if count == 0:
        where = "its class in another group" if grouped else "its class"
        raise UserError(f"labels: expected a query with another item of {where} in the gallery, got none of {queries}")
    figures = {f"recall_at_{k}": int((found.first <= k).sum()) / count for k in recall_at}
    means = {"r_precision": found.r_precision, "map_at_r": found.map_at_r}
    if all_ranks:
        means |= {"map": found.map, "mrr": found.first.double().reciprocal()}
    # fsum rounds once, at the end, so that the order of the queries does not show.
    figures |= {name: math.fsum(values.tolist()) / count for name, values in means.items()}
    return figures | {"queries": float(count), "queries_without_positive": float(queries - count)}


def _reject_half_a_gallery(given: list[str]) -> None:
    if given:
        raise UserError(f"gallery and gallery_labels: expected both or neither, got only {', '.join(given)}")
