"""The figures as metrics, for Lightning and for any loop: they share the collecting and differ in what they compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.distributed import gather_rows, row_counts, shard, sum_over_ranks, world_size
from metric_module.errors import UserError
from metric_module.evaluation.clustering import check_runs, clustering_metrics
from metric_module.evaluation.few_shot import check_episodes, few_shot_metrics
from metric_module.evaluation.inputs import Items, check_cutoffs
from metric_module.evaluation.instances import instance_metrics
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.retrieval import PerQuery, retrieval_means, retrieval_per_query
from metric_module.evaluation.verification.metrics import verification_metrics
from metric_module.evaluation.verification.pair_counts import PairCounts, count_pairs, pairs_of
from metric_module.evaluation.verification.rates import check_rates, rates
from metric_module.functional import full_precision


class RetrievalMetric(EmbeddingMetric):
    """:func:`retrieval_metrics` over all batches of all processes, each of which looks at its share of the queries.

    With groups, the figures across groups come beside the plain ones, under their names after ``cross_group_``. With
    queries, these look among the other samples alone.

    Args:
        distance: The distance; None is Euclidean.
        recall_at: The values of k in ``recall_at_k``.
        all_ranks: Whether to count every rank to the end, for ``map`` and ``mrr``.

    Raises:
        UserError: If a value of ``recall_at`` is not a positive integer; from ``compute`` if no query has a positive.

    Example:
        >>> metric = RetrievalMetric(recall_at=(1,))
        >>> metric.update(torch.tensor([[0.0], [3.0]]), torch.tensor([7, 8]), torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([[1.0], [9.0]]), torch.tensor([7, 8]), torch.tensor([2, 3]))
        >>> metric.compute()["recall_at_1"]
        0.75
    """

    def __init__(
        self, distance: Distance | None = None, recall_at: Sequence[int] = (1, 5, 10), all_ranks: bool = True
    ) -> None:
        super().__init__(distance)
        self.all_ranks = all_ranks
        self.recall_at = check_cutoffs(recall_at)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`retrieval_metrics`."""
        figures = self._figures(samples, None)
        if samples.groups is not None:
            across = self._figures(samples, samples.groups)
            figures |= {f"cross_group_{name}": value for name, value in across.items()}
        return figures

    def _figures(self, samples: Gathered, groups: Tensor | None) -> dict[str, float]:
        query, gallery = Items(samples.embeddings, samples.labels, samples.ids, groups), None
        if samples.queries is not None:
            query, gallery = _take(query, samples.queries), _take(query, ~samples.queries)
        found = retrieval_per_query(
            *query[:3],
            gallery=None if gallery is None else gallery.embeddings,
            gallery_labels=None if gallery is None else gallery.labels,
            gallery_ids=None if gallery is None else gallery.ids,
            groups=query.groups,
            gallery_groups=None if gallery is None else gallery.groups,
            distance=self.distance,
            share=shard(),
            deepest=None if self.all_ranks else max(self.recall_at, default=1),
        )
        if world_size() > 1:
            device = samples.embeddings.device
            sizes = row_counts(found.rows.to(device))
            found = PerQuery(*(gather_rows(part.to(device), sizes).cpu() for part in found))
        return retrieval_means(found, len(query.labels), self.recall_at, groups is not None, self.all_ranks)


class VerificationMetric(EmbeddingMetric):
    """:func:`verification_metrics` over all batches of all processes, each of which looks at its share of the pairs.

    Attributes ``threshold``, ``pairs`` and ``folds`` are handed on. Pairs count in a set that has all of their samples;
    in any other set, all pairs of its own are looked at.

    Args:
        distance: The distance; None is Euclidean.
        far: The false accept rates of ``tar_at_far``.

    Raises:
        UserError: If a rate is not in (0, 1); from ``compute`` if there are no pairs of one class, or of two.
    """

    def __init__(self, distance: Distance | None = None, far: Sequence[float] = (1e-2, 1e-3, 1e-4)) -> None:
        super().__init__(distance)
        check_rates(far)
        self.far = tuple(far)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`verification_metrics`."""
        if self.pairs is not None and bool(torch.isin(self.pairs.to(samples.ids.device), samples.ids).all()):
            return verification_metrics(
                *samples[:3],
                distance=self.distance,
                far=self.far,
                threshold=self.threshold,
                pairs=self.pairs,
                folds=self.folds,
            )
        with torch.no_grad(), full_precision(samples.embeddings.device.type):
            pairs = pairs_of(samples.embeddings, self.distance)
            mine = count_pairs(pairs, samples.labels, pairs.inner(self.threshold), shard())
            closer, within = sum_over_ranks(torch.stack([mine.closer, mine.within]))
            different = int(sum_over_ranks(torch.tensor(mine.different, device=closer.device)))
        counts = PairCounts(mine.thresholds, mine.same, closer, within, different)
        return rates(counts, pairs, self.far, self.threshold)


class FewShotMetric(EmbeddingMetric):
    """:func:`few_shot_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        ways: How many classes an episode has.
        shots: How many samples of each are shown.
        queries: Most queries of a class in an episode.
        episodes: How many episodes.
        seed: Which episodes.

    Raises:
        UserError: If a number is too small; from ``compute`` if there are too few classes.
    """

    def __init__(
        self,
        distance: Distance | None = None,
        ways: int = 5,
        shots: Sequence[int] = (1, 5),
        queries: int = 15,
        episodes: int = 600,
        seed: int = 0,
    ) -> None:
        super().__init__(distance)
        check_episodes(ways, shots, queries, episodes)
        self.ways, self.shots, self.queries_per_class = ways, tuple(shots), queries
        self.episodes, self.seed = episodes, seed

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`few_shot_metrics`."""
        return few_shot_metrics(
            *samples[:3],
            distance=self.distance,
            ways=self.ways,
            shots=self.shots,
            queries=self.queries_per_class,
            episodes=self.episodes,
            seed=self.seed,
        )


class ClusteringMetric(EmbeddingMetric):
    """:func:`clustering_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        runs: How many starts of k-means.
        seed: Of the starts.

    Raises:
        UserError: If there is no start; from ``compute`` if scikit-learn is missing, or cannot use the distance.
    """

    def __init__(self, distance: Distance | None = None, runs: int = 1, seed: int = 0) -> None:
        super().__init__(distance)
        check_runs(runs)
        self.runs, self.seed = runs, seed

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`clustering_metrics`."""
        return clustering_metrics(*samples[:3], distance=self.distance, runs=self.runs, seed=self.seed)


class InstanceMetric(EmbeddingMetric):
    """:func:`instance_metrics` over all batches of all processes, with the threshold that validation found best.

    Args:
        distance: The distance; None is Euclidean.

    Raises:
        UserError: From ``compute`` if samples have no groups, or scikit-learn is missing.
    """

    def __init__(self, distance: Distance | None = None) -> None:
        super().__init__(distance)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`instance_metrics`."""
        if samples.groups is None:
            raise UserError("instances: expected samples with groups, got none; the data module's groups say which")
        return instance_metrics(*samples[:3], groups=samples.groups, distance=self.distance, threshold=self.threshold)


class MetricGroup(EmbeddingMetric):
    """Several metrics of the same embeddings, which are collected once.

    Args:
        metrics: The metrics.

    Raises:
        UserError: If there is none, or from ``compute`` if two give a figure of the same name.
    """

    def __init__(self, metrics: Sequence[EmbeddingMetric]) -> None:
        if not metrics:
            raise UserError("evaluation: expected at least one metric, got none")
        super().__init__(metrics[0].distance)
        self.metrics = tuple(metrics)

    @override
    def check_sought(self) -> None:
        """Each of them looks for itself."""
        for metric in self.metrics:
            metric.sought = self.sought
            metric.check_sought()

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """The figures of all of them."""
        figures: dict[str, float] = {}
        for metric in self.metrics:
            metric.threshold, metric.pairs, metric.folds = self.threshold, self.pairs, self.folds
            found = metric.figures(samples)
            twice = figures.keys() & found.keys()
            if twice:
                raise UserError(f"evaluation: two metrics give {min(twice)}; expected different names")
            figures |= found
        return figures


def _take(items: Items, which: Tensor) -> Items:
    """Some of the items."""
    return Items(*(None if part is None else part[which] for part in items))  # type: ignore[arg-type]
