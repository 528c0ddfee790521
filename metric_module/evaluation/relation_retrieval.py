"""Retrieval in a relation: how early a query finds the references that belong to it, such as a user's items.

Shapes: Q = queries, M = references, A = queries in a block, K = most positives of a query, C = cut-offs, D = embedding
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance
from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.exact.matches import Listed, cut
from metric_module.evaluation.inputs import check_cutoffs
from metric_module.evaluation.queries import mean, measure_blocks, rank_positives, row_sums
from metric_module.evaluation.retrieval import CELLS_AT_ONCE, exact_ranks
from metric_module.functional import full_precision
from metric_module.relations import Links, Relation

QUERIES_AT_ONCE = 256


class Sought(NamedTuple):
    """Retrieval task in a set of samples: which of them search among which others, and what belongs together.

    Attributes:
        queries: Ids of the queries, int64 ``(Q,)``.
        references: Ids of the references, int64 ``(M,)``; a sample may be both.
        positives: Which references belong to which query, by their places in ``queries`` and ``references``.
        ignored: Which references are left out for which query, neither hit nor miss; None: none.
    """

    queries: Tensor
    references: Tensor
    positives: Relation
    ignored: Relation | None = None

    def reverse(self) -> Sought:
        """Return the task with queries and references exchanged."""

        def turned(relation: Relation) -> Links:
            """List the queries of every reference."""
            return relation.lists(torch.arange(len(self.queries))).reverse(len(self.references))

        ignored = None if self.ignored is None else turned(self.ignored)
        return Sought(self.references, self.queries, turned(self.positives), ignored)


class PairRanks(NamedTuple):
    """Figures of each query that has a positive, in order of row, on the CPU."""

    rows: Tensor  # (Q,) rows of the queries, int64
    sizes: Tensor  # (Q,) number of positives, int64
    first: Tensor  # (Q,) rank of the nearest positive, int64
    found: Tensor  # (Q, C) number of positives up to each cut-off, int64
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
    r"""Measure how early each query finds the references that belong to it, among all references.

    A query has R positives. With them in order of distance, the j-th has ``rank_j = j + #{other references at its
    distance or closer}``, ignored ones not counted: a tie is a miss. Then, for each k,

    - ``recall_at_k`` = mean over queries of ``#{j : rank_j <= k} / R``, as recommenders define it;
      :func:`retrieval_metrics` gives the name ``recall_at_k`` to the ``hit_rate_at_k`` below. With one positive the two
      are equal.
    - ``hit_rate_at_k`` = mean of ``[rank_1 <= k]``
    - ``ndcg_at_k`` = mean of ``sum of 1 / log2(1 + rank_j) over rank_j <= k``, divided by what R positives at the top
      would have (Järvelin and Kekäläinen 2002, with gains of 0 and 1)

    and ``map`` = mean of ``1/R sum of j / rank_j``, ``mrr`` = mean of ``1 / rank_1``. Queries without a positive are
    left out and counted. All references are searched: figures from a random sample of them may rank models in another
    order (Krichene and Rendle 2020).

    The figures are as exact as those of :func:`retrieval_metrics`, and independent of blocks and of the order of rows.
    Memory is O((Q + M) D) plus the lists of the queries of a block.

    Args:
        queries: Embeddings ``(Q, D)``, floating point.
        references: Embeddings ``(M, D)``.
        positives: Which references belong to each query.
        ignored: Which references are left out for each query, if they are not positives; None: none.
        distance: The distance; None is Euclidean.
        at: The values of k.

    Returns:
        The figures, in [0, 1], then ``queries``, the number of queries they are averaged over, and
        ``queries_without_positive``.

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
    shard: tuple[int, int] = (0, 1),
) -> PairRanks:
    """Compute the figures of each query, whose means :func:`pair_retrieval_metrics` returns.

    Args:
        queries: Embeddings ``(Q, D)``, floating point.
        references: Embeddings ``(M, D)``.
        positives: Which references belong to each query.
        ignored: Which references are left out for each query, if they are not positives; None: none.
        distance: The distance; None is Euclidean.
        at: The values of k.
        shard: ``(rank, world_size)``: measure every world_size-th block of queries, starting with number rank.

    Raises:
        UserError: If a shape, type or number is wrong.
    """
    check_embeddings("queries", queries)
    check_embeddings("references", references, width=queries.shape[1])
    for name, relation in (("positives", positives), ("ignored", ignored)):
        if isinstance(relation, Links) and len(relation) != len(queries):
            raise UserError(f"{name}: expected a list for each of {len(queries)} queries, got {len(relation)}")
    order = torch.arange(len(references), device=references.device)
    none, numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    empty = PairRanks(none, none, none, none.view(0, len(at)), numbers.view(0, len(at)), numbers)
    with torch.no_grad(), full_precision(queries.device.type):
        ranks = exact_ranks(queries, references, distance, order)
        cells = CELLS_AT_ONCE // 4
        most = max(1, min(QUERIES_AT_ONCE, cells // ranks.cells_per_query))

        def measure(rows: Tensor) -> Iterator[PairRanks]:
            """Compute the figures of one block."""
            for block in _blocks(rows, positives, ignored, len(references), most, cells):
                yield _figures(block, ranks.count_listed(block.to(queries.device)).cpu(), at)

        blocks = torch.split(torch.arange(len(queries)), QUERIES_AT_ONCE)[shard[0] :: shard[1]]
        return measure_blocks(lambda rows: [*measure(rows)], blocks, ranks.threaded, empty)


def pair_means(found: PairRanks, queries: int, at: Sequence[int]) -> dict[str, float]:
    """Average the figures of the queries into those of :func:`pair_retrieval_metrics`.

    Args:
        found: Figures of every query that has a positive.
        queries: Number of queries, those without a positive included.
        at: The cut-offs.

    Raises:
        UserError: If no query has a positive.
    """
    count = len(found.rows)
    if not count:
        expected = "a query with a reference that belongs to it"
        raise NotComputableError(f"positives: expected {expected}, got none of {queries}")
    figures: dict[str, float] = {}
    for place, k in enumerate(at):
        figures[f"recall_at_{k}"] = mean(found.found[:, place].double() / found.sizes)
        figures[f"hit_rate_at_{k}"] = mean(found.first <= k)
        figures[f"ndcg_at_{k}"] = mean(found.gain[:, place])
    figures |= {"map": mean(found.precision), "mrr": mean(found.first.double().reciprocal())}
    return figures | {"queries": float(count), "queries_without_positive": float(queries - count)}


def _blocks(
    rows: Tensor, positives: Relation, ignored: Relation | None, references: int, most: int, cells: int
) -> Iterator[Listed]:
    """Cut the queries that have a positive into blocks of at most ``most`` queries and ``cells`` listed items."""
    near = positives.lists(rows)
    empty = Links(torch.zeros(len(rows) + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    out = empty if ignored is None else _without(ignored.lists(rows), near, references)
    for name, links in (("positives", near), ("ignored", out)):
        if len(links.columns) and int(links.columns.max()) >= references:
            raise UserError(f"{name}: expected references in [0, {references}), got {int(links.columns.max())}")
    kept = (near.sizes > 0).nonzero()[:, 0]  # (A,)
    for first, last in cut((near.sizes + out.sizes)[kept], most, cells):
        block = kept[first:last]
        yield Listed(rows[block], near.lists(block).padded(), out.lists(block).padded())


def _without(links: Links, other: Links, references: int) -> Links:
    """Remove the links that are also among others of the same queries."""
    (row, column), (other_row, other_column) = links.pairs(), other.pairs()
    kept = ~torch.isin(row * references + column, other_row * references + other_column)
    return Links.of(row[kept], column[kept], len(links))


def _figures(block: Listed, closer: Tensor, at: Sequence[int]) -> PairRanks:
    """Compute the figures of queries ``(A,)`` from the numbers of misses before each of their positives ``(A, K)``."""
    sizes = block.positive[1].sum(dim=1)  # (A,)
    rank, precision = rank_positives(sizes, closer)  # (A, K), (A, K)
    gain = 1 / (rank.double() + 1).log2()  # (A, K)
    best = (1 / (torch.arange(1, rank.shape[1] + 1).double() + 1).log2()).cumsum(
        0
    )  # (K,) with all positives at the top
    found = [(rank <= k).sum(dim=1) for k in at]
    gains = [row_sums(gain.where(rank <= k, 0.0)) / best[sizes.clamp(max=k) - 1] for k in at]
    at_each = [torch.stack(values, dim=1) if at else rank[:, :0] for values in (found, gains)]  # (A, C), (A, C)
    return PairRanks(block.rows, sizes, rank[:, 0], at_each[0], at_each[1], row_sums(precision) / sizes)
