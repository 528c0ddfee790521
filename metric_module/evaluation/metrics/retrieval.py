"""Retrieval of classes as a metric, for Lightning and for any loop.

Shapes: N = samples, Q = queries, M = gallery items.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.distributed import shard
from metric_module.evaluation.inputs import Items, check_cutoffs
from metric_module.evaluation.k_reciprocal import MOST, ReciprocalGallery
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.preflight import Labelled, Missing, without_positives
from metric_module.evaluation.queries import gather_queries
from metric_module.evaluation.rerank_methods import Method, QueryExpansion, Rerank, rerank_methods
from metric_module.evaluation.reranked_ranks import RerankedRanks
from metric_module.evaluation.reranking import expanded, neighbours, positions
from metric_module.evaluation.retrieval import PerQuery, Ranks, measure_queries, retrieval_means

FIGURES = ("recall_at_*", "r_precision", "map_at_r", "map", "mrr", "queries", "queries_without_positive")
"""The figures as patterns."""


class _Search(NamedTuple):
    """Queries ``(Q,)`` and a gallery ``(M,)``, with their groups if samples have any."""

    query: Items
    gallery: Items
    ranks: Ranks | None = None  # None: those of the distance


class RetrievalMetric(EmbeddingMetric):
    """:func:`retrieval_metrics` over all batches of all processes, each of which measures its shard of the queries.

    With groups, the figures across groups are added under their names after ``cross_group_``. With queries, these
    search among the other samples only. ``compute`` keeps the figures of each query in :attr:`per_query`.

    With a method of re-ranking, its figures are added under their names before ``_k_reciprocal`` or
    ``_query_expansion``; see :func:`k_reciprocal_distances` and :func:`expand_queries`.

    Args:
        distance: The distance; None is Euclidean.
        recall_at: The values of k in ``recall_at_k``.
        all_ranks: Whether to count every rank to the end, for ``map`` and ``mrr``.
        rerank: ``k_reciprocal``, ``query_expansion``, both in a list, or settings by method:
            ``{"k_reciprocal": {"k1": 30}}``; None is neither.

    Raises:
        UserError: If a value of ``recall_at`` is not a positive integer, a method or a setting does not exist, or a
            setting is out of range.

    Example:
        >>> metric = RetrievalMetric(recall_at=(1,))
        >>> metric.update(torch.tensor([[0.0], [3.0]]), torch.tensor([7, 8]), torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([[1.0], [9.0]]), torch.tensor([7, 8]), torch.tensor([2, 3]))
        >>> metric.compute()["recall_at_1"]
        0.75
    """

    main_figure = "map_at_r"

    def __init__(
        self,
        distance: Distance | None = None,
        recall_at: Sequence[int] = (1, 5, 10),
        all_ranks: bool = True,
        rerank: Rerank = None,
    ) -> None:
        super().__init__(distance)
        self.all_ranks = all_ranks
        self.recall_at = check_cutoffs(recall_at)
        self.rerank = rerank_methods(rerank, "evaluation.retrieval.rerank")

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`retrieval_metrics`; the figures across groups and after re-ranking included."""
        names = [*(f"recall_at_{k}" for k in self.recall_at), "r_precision", "map_at_r"]
        names += ["map", "mrr"] if self.all_ranks else []
        every = [*names, "queries", "queries_without_positive"]
        every += [f"{name}_{method}" for method in self.rerank for name in names]
        return [*every, *(f"cross_group_{name}" for name in every)]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`retrieval_metrics`."""
        query = gallery = Items(*samples[:4])
        rows = torch.arange(len(samples.ids))  # (Q,)
        if samples.queries is not None:
            asked = samples.queries.to(query.labels.device)  # (N,)
            query, gallery = query.each(lambda part: part[asked]), query.each(lambda part: part[~asked])
            rows = rows[asked.cpu()]
        plain = _Search(query, gallery)
        found = self._per_query(plain, across=False)
        self.per_query = found._replace(rows=rows[found.rows])
        figures = self._both(plain, found)
        for name, method in self.rerank.items():
            again = self.if_possible(name, partial(self._reranked, plain, method))
            figures |= {f"{figure}_{name}": value for figure, value in again.items() if "queries" not in figure}
        return figures

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: a query needs a positive, and re-ranking not too large a gallery."""
        kinds = [(False, "")] if data.groups is None else [(False, ""), (True, "cross_group_")]
        reasons = [(prefix, without_positives(data, across)) for across, prefix in kinds]
        names = [*FIGURES, *(f"*_{method}" for method in self.rerank)]
        found = [Missing([f"{prefix}{name}" for name in names], reason) for prefix, reason in reasons if reason]
        size = len(data.labels) if data.queries is None else int((~data.queries).sum())
        if "k_reciprocal" in self.rerank and size > MOST:
            reason = (
                f"its gallery has {size:,} items, and at most {MOST:,} can be re-ranked (evaluation.retrieval.rerank)"
            )
            found.append(Missing(["*_k_reciprocal"], reason))
        return found

    def _reranked(self, plain: _Search, method: Method) -> dict[str, float]:
        query, gallery, _ = plain
        if isinstance(method, QueryExpansion):
            near = neighbours(query, gallery, method.k, self.distance)  # (Q, K)
            again = expanded(query.embeddings, near, gallery.embeddings.__getitem__, method.alpha)  # (Q, D)
            search = _Search(query._replace(embeddings=again), gallery)
        else:
            query, gallery = query.each(Tensor.cpu), gallery.each(Tensor.cpu)
            encoded = ReciprocalGallery(gallery.embeddings, method, self.distance)
            ranks = partial(RerankedRanks, encoded, query.embeddings, positions(query, gallery))
            search = _Search(query, gallery, ranks)
        return self._both(search, self._per_query(search, across=False))

    def _both(self, search: _Search, found: PerQuery) -> dict[str, float]:
        """Compute the figures from those of each query, and the figures across groups."""
        figures = self._means(search, found, across=False)
        if search.query.groups is not None:
            across = self.if_possible(
                "cross_group", lambda: self._means(search, self._per_query(search, across=True), across=True)
            )
            figures |= {f"cross_group_{name}": value for name, value in across.items()}
        return figures

    def _means(self, search: _Search, found: PerQuery, across: bool) -> dict[str, float]:
        return retrieval_means(found, len(search.query.labels), self.recall_at, across, self.all_ranks)

    def _per_query(self, search: _Search, across: bool) -> PerQuery:
        """Measure the queries of all processes."""
        query, gallery = (side if across else side._replace(groups=None) for side in search[:2])
        deepest = None if self.all_ranks else max(self.recall_at, default=1)
        found = measure_queries(query, gallery, self.distance, shard=shard(), deepest=deepest, ranks=search.ranks)
        return gather_queries(found, search.query.embeddings.device)
