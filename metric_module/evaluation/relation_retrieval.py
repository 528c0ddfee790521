"""Retrieval figures of pairs: how early a query finds the references that belong to it.

Shapes: Q = queries, M = references, A = queries in a block, K = most positives of a query, C = cut-offs, D = embedding
size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import CustomRanks
from metric_module.evaluation.exact.matches import Listed
from metric_module.evaluation.exact.threads import in_threads
from metric_module.evaluation.inputs import check_cutoffs
from metric_module.evaluation.retrieval import CELLS_AT_ONCE, exact_ranks
from metric_module.functional import full_precision
from metric_module.relations import Links, Relation

QUERIES_AT_ONCE = 256


class Sought(NamedTuple):
    """What is looked for in a set of samples.

    Attributes:
        queries: Ids of the queries, int64 ``(Q,)``.
        references: Ids of the references, int64 ``(M,)``; a sample may be both.
        positives: Which references belong to which query, by their places in the two above.
        ignored: Which references are left out for which query, neither hit nor miss; None: none.
    """

    queries: Tensor
    references: Tensor
    positives: Relation
    ignored: Relation | None = None

    def reverse(self) -> Sought:
        """Queries and references in each other's place, with every link in a list."""

        def turned(relation: Relation) -> Links:
            """The links of all queries, from the references."""
            return relation.lists(torch.arange(len(self.queries))).reverse(len(self.references))

        ignored = None if self.ignored is None else turned(self.ignored)
        return Sought(self.references, self.queries, turned(self.positives), ignored)


class PairRanks(NamedTuple):
    """What is known of each query that has a positive, on the CPU."""

    rows: Tensor  # (Q,) which queries these are, int64
    sizes: Tensor  # (Q,) how many positives, int64
    first: Tensor  # (Q,) rank of the nearest, int64
    found: Tensor  # (Q, C) how many of them up to each cut-off, int64
    gain: Tensor  # (Q, C) ndcg at each cut-off, float64
    precision: Tensor  # (Q,) average precision, float64


def pair_retrieval_metrics(
    queries: Tensor,
    references: Tensor,
    positives: Relation,
    *,
    ignored: Relation | None = None,
    distance: Distance | None = None,
    at: Sequence[int] = (1, 10, 20),
) -> dict[str, float]:
    r"""How early each query finds the references that belong to it, among all references.

    A query has R positives. With them in order of distance, the j-th has ``rank_j = j + #{other references at its
    distance or closer}``, ignored ones not counted: a tie is a miss. Then, for each k,

    - ``recall_at_k`` = mean over queries of ``#{j : rank_j <= k} / R``, as recommenders define it;
      :func:`retrieval_metrics` calls by that name what is ``hit_rate_at_k`` here. With one positive they are the same.
    - ``hit_rate_at_k`` = mean of ``[rank_1 <= k]``
    - ``ndcg_at_k`` = mean of ``sum of 1 / log2(1 + rank_j) over rank_j <= k``, divided by what R positives at the top
      would have (Järvelin and Kekäläinen 2002, with gains of 0 and 1)

    and ``map`` = mean of ``1/R sum of j / rank_j``, ``mrr`` = mean of ``1 / rank_1``. Queries without a positive are
    left out and counted. No figure is taken from a sample of the references: such figures may rank models in another
    order (Krichene and Rendle 2020).

    Exact as :func:`retrieval_metrics` is, and independent of blocks and of the order of rows. Memory is O((Q + M) D)
    and the lists of the queries at hand.

    Args:
        queries: Embeddings ``(Q, D)``, floating point.
        references: Embeddings ``(M, D)``.
        positives: Which references belong to each query.
        ignored: Which are left out for it, if they are not positives; None: none.
        distance: The distance; None is Euclidean.
        at: The values of k.

    Returns:
        The figures, in [0, 1], then ``queries``, how many they are a mean over, and ``queries_without_positive``.

    Raises:
        UserError: If a shape, type or number is wrong, or no query has a positive.

    Example:
        >>> users, items = torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [2.0], [4.0], [9.0]])
        >>> likes = Links.of(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 3]), queries=2)
        >>> figures = pair_retrieval_metrics(users, items, likes, at=(2,))
        >>> {name: round(value, 3) for name, value in figures.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'recall_at_2': 0.25, 'hit_rate_at_2': 0.5, 'ndcg_at_2': 0.307, 'map': 0.542, 'mrr': 0.625,
         'queries': 2.0, 'queries_without_positive': 0.0}
    """
    cutoffs = check_cutoffs(at)
    found = pair_ranks(queries, references, positives, ignored=ignored, distance=distance, at=cutoffs)
    return pair_means(found, len(queries), cutoffs)


def pair_ranks(
    queries: Tensor,
    references: Tensor,
    positives: Relation,
    *,
    ignored: Relation | None = None,
    distance: Distance | None = None,
    at: Sequence[int] = (1, 10, 20),
    share: tuple[int, int] = (0, 1),
) -> PairRanks:
    """What :func:`pair_retrieval_metrics` takes the means of.

    Args:
        queries: As there, and so are the others up to ``at``.
        references: As there.
        positives: As there.
        ignored: As there.
        distance: As there.
        at: As there.
        share: Rank r and number of ranks W: look at every W-th block of queries, from the r-th on.

    Raises:
        UserError: If a shape, type or number is wrong.
    """
    check_embeddings("queries", queries)
    check_embeddings("references", references, width=queries.shape[1])
    for name, relation in (("positives", positives), ("ignored", ignored)):
        if isinstance(relation, Links) and len(relation) != len(queries):
            raise UserError(f"{name}: expected a list for each of {len(queries)} queries, got {len(relation)}")
    order = torch.arange(len(references), device=references.device)
    starts = range(0, len(queries), QUERIES_AT_ONCE)[share[0] :: share[1]]
    with torch.no_grad(), full_precision(queries.device.type):
        ranks = exact_ranks(queries, references, distance, order)
        cells = CELLS_AT_ONCE // 4
        most = max(1, cells // max(1, len(references))) if isinstance(ranks, CustomRanks) else QUERIES_AT_ONCE

        def measure(start: int) -> PairRanks:
            """Figures of one block."""
            rows = torch.arange(start, min(start + QUERIES_AT_ONCE, len(queries)))  # (A,)
            parts = [_nothing(len(at))]
            for block in _blocks(rows, positives, ignored, len(references), most, cells):
                parts.append(_figures(block, ranks.count_listed(block.to(queries.device)).cpu(), at))
            return _joined(parts)

        alone = isinstance(ranks, CustomRanks) or queries.device.type != "cpu"
        parts = [measure(start) for start in starts] if alone else in_threads(measure, starts)
    return _joined([_nothing(len(at)), *parts])


def _nothing(cutoffs: int) -> PairRanks:
    none, float_none = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    return PairRanks(none, none, none, none.view(0, cutoffs), float_none.view(0, cutoffs), float_none)


def _joined(parts: Sequence[PairRanks]) -> PairRanks:
    return PairRanks(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _blocks(
    rows: Tensor, positives: Relation, ignored: Relation | None, references: int, most: int, cells: int
) -> Iterator[Listed]:
    """Queries with a positive in blocks of at most so many, and, but for single queries, so many listed items."""
    near = positives.lists(rows)
    empty = Links(torch.zeros(len(rows) + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    out = empty if ignored is None else _without(ignored.lists(rows), near, references)
    for name, links in (("positives", near), ("ignored", out)):
        if len(links.columns) and int(links.columns.max()) >= references:
            raise UserError(f"{name}: expected references in [0, {references}), got {int(links.columns.max())}")
    kept = (near.sizes > 0).nonzero()[:, 0]  # (A,)
    width = near.sizes + out.sizes
    first = 0
    while first < len(kept):
        last = min(first + most, len(kept))
        widest = width[kept[first:last]].cummax(0).values * torch.arange(1, last - first + 1)
        last = first + max(1, int((widest <= cells).sum()))
        block = kept[first:last]
        yield Listed(rows[block], near.lists(block).padded(), out.lists(block).padded())
        first = last


def _without(links: Links, other: Links, references: int) -> Links:
    """Links that are not among others of the same queries."""
    (row, column), (other_row, other_column) = links.pairs(), other.pairs()
    kept = ~torch.isin(row * references + column, other_row * references + other_column)
    return Links.of(row[kept], column[kept], len(links))


def _figures(block: Listed, closer: Tensor, at: Sequence[int]) -> PairRanks:
    """Figures of queries from the numbers of misses before each of their positives ``(A, K)``."""
    sizes = block.positive[1].sum(dim=1)  # (A,)
    slot = torch.arange(1, closer.shape[1] + 1)  # (K,)
    rank = closer + slot  # (A, K)
    real = slot <= sizes[:, None]  # (A, K)
    rank = rank.masked_fill(~real, torch.iinfo(torch.int64).max)
    # Running sums add from left to right, so that the padding of a block does not change the rounding.
    precision = (slot.double() / rank).where(real, 0.0).cumsum(dim=1)[:, -1] / sizes  # (A,)
    gain = (1 / (rank.double() + 1).log2()).where(real, 0.0)  # (A, K)
    best = (1 / (slot.double() + 1).log2()).cumsum(0)  # (K,), of so many positives at the top
    found = torch.stack([(rank <= k).sum(dim=1) for k in at], dim=1) if at else rank[:, :0]  # (A, C)
    gains = [gain.where(rank <= k, 0.0).cumsum(dim=1)[:, -1] / best[sizes.clamp(max=k) - 1] for k in at]
    return PairRanks(block.rows, sizes, rank[:, 0], found, torch.stack(gains, dim=1) if at else gain[:, :0], precision)


def pair_means(found: PairRanks, queries: int, at: Sequence[int]) -> dict[str, float]:
    """The figures of :func:`pair_retrieval_metrics` from what is known of each query.

    Args:
        found: Of every query that has a positive.
        queries: How many queries there are, with those that have none.
        at: The cut-offs.

    Raises:
        UserError: If no query has a positive.
    """
    count = len(found.rows)
    if not count:
        raise UserError(f"positives: expected a query with a reference that belongs to it, got none of {queries}")

    def mean(values: Tensor) -> float:
        """Rounded once, at the end, so that the order of the queries does not show."""
        return math.fsum(values.tolist()) / count

    figures: dict[str, float] = {}
    for place, k in enumerate(at):
        figures[f"recall_at_{k}"] = mean(found.found[:, place].double() / found.sizes)
        figures[f"hit_rate_at_{k}"] = int((found.first <= k).sum()) / count
        figures[f"ndcg_at_{k}"] = mean(found.gain[:, place])
    figures |= {"map": mean(found.precision), "mrr": mean(found.first.double().reciprocal())}
    return figures | {"queries": float(count), "queries_without_positive": float(queries - count)}
