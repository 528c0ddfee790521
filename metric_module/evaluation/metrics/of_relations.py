"""Retrieval in a relation as a metric, for Lightning and for any loop.

Shapes: Q = queries, M = references, n = samples that were read, or links between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.distributed import shard
from metric_module.errors import NotComputableError
from metric_module.evaluation.inputs import check_cutoffs
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.queries import gather_queries
from metric_module.evaluation.relation_retrieval import Sought, pair_means, pair_ranks
from metric_module.relations import Links, Relation


class PairRetrievalMetric(EmbeddingMetric):
    """:func:`pair_retrieval_metrics` over all batches of all processes, each of which measures a shard of the queries.

    :attr:`sought` says which samples are queries, which are references, and what belongs together; the module takes it
    from the data module. If only a part of a set was read (``trainer.limit_val_batches``), the figures are those of
    that part. Labels are not used.

    Args:
        distance: The distance; None is Euclidean.
        at: The cut-offs k.
        both_ways: Whether references also search for their queries among all queries, as images for their captions:
            these figures are added under their names after ``reverse_``. A distance that is not symmetric is then
            measured from reference to query.

    Raises:
        UserError: If a value of ``at`` is not a positive integer; from ``compute`` if no query has a positive.

    Example:
        >>> metric = PairRetrievalMetric(at=(1,))
        >>> metric.update(torch.tensor([[0.0], [1.0], [5.0]]), torch.arange(3), ids=torch.tensor([0, 10, 11]))
        >>> likes = Links.of(torch.tensor([0]), torch.tensor([1]), queries=1)
        >>> metric.sought = Sought(torch.tensor([0]), torch.tensor([10, 11]), likes)
        >>> metric.compute()["mrr"]
        0.5
    """

    by_pairs = True

    def __init__(
        self, distance: Distance | None = None, at: Sequence[int] = (1, 10, 20), both_ways: bool = False
    ) -> None:
        super().__init__(distance)
        self.at = check_cutoffs(at)
        self.both_ways = both_ways
        self.main_figure = f"ndcg_at_{10 if 10 in self.at else max(self.at)}" if self.at else "map"

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`pair_retrieval_metrics`."""
        names = [f"{name}_at_{k}" for k in self.at for name in ("recall", "hit_rate", "ndcg")]
        names += ["map", "mrr", "queries", "queries_without_positive"]
        return [*names, *(f"reverse_{name}" for name in names)] if self.both_ways else names

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`pair_retrieval_metrics`."""
        assert self.sought is not None  # checked by compute()
        ids, device = samples.ids.cpu(), samples.embeddings.device
        sought = present(self.sought, ids)
        query, reference = (
            samples.embeddings.index_select(0, torch.searchsorted(ids, wanted).to(device))
            for wanted in (sought.queries, sought.references)
        )
        figures = self._one_way(query, reference, sought)
        if self.both_ways:
            back = self._one_way(reference, query, sought.reverse())
            figures |= {f"reverse_{name}": value for name, value in back.items()}
        return figures

    def _one_way(self, query: Tensor, reference: Tensor, sought: Sought) -> dict[str, float]:
        """Compute the figures of queries ``(Q, D)`` among references ``(M, D)``, a shard of them in every process."""
        found = pair_ranks(
            query,
            reference,
            sought.positives,
            ignored=sought.ignored,
            distance=self.distance,
            at=self.at,
            shard=shard(),
        )
        return pair_means(gather_queries(found, query.device), len(query), self.at)


def present(sought: Sought, ids: Tensor) -> Sought:
    """Restrict a retrieval task to some of the samples; return the same object if these are all.

    Args:
        sought: The task among all samples.
        ids: Ids of the samples that were read, ascending, int64 ``(n,)``.

    Raises:
        UserError: If there is no query or no reference among them.
    """
    queries, references = (torch.isin(wanted, ids).nonzero()[:, 0] for wanted in sought[:2])
    if len(queries) == len(sought.queries) and len(references) == len(sought.references):
        return sought
    if not len(queries) or not len(references):
        raise NotComputableError(
            f"evaluation: expected queries and references among the samples that were read, got {len(queries)} "
            f"and {len(references)}"
        )
    place = torch.full((len(sought.references),), -1)
    place[references] = torch.arange(len(references))

    def part(relation: Relation) -> Links:
        """Keep the links among the samples that were read."""
        row, column = relation.lists(queries).pairs()  # (n,), (n,)
        kept = place[column] >= 0
        return Links.of(row[kept], place[column[kept]], len(queries))

    ignored = None if sought.ignored is None else part(sought.ignored)
    return Sought(sought.queries[queries], sought.references[references], part(sought.positives), ignored)
