"""Metrics of classes, for Lightning and for any loop: they share how samples are collected.

Shapes: N = samples, Q = queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.distributed import shard
from metric_module.errors import UserError
from metric_module.evaluation.clustering import check_runs, clustering_metrics
from metric_module.evaluation.few_shot import check_episodes, few_shot_metrics
from metric_module.evaluation.inputs import Items, check_cutoffs
from metric_module.evaluation.instances import instance_metrics
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.queries import gather_queries
from metric_module.evaluation.retrieval import measure_queries, retrieval_means
from metric_module.evaluation.verification.metrics import measure_pairs
from metric_module.evaluation.verification.rates import check_rates


class RetrievalMetric(EmbeddingMetric):
    """:func:`retrieval_metrics` over all batches of all processes, each of which measures its shard of the queries.

    With groups, the figures across groups are added under their names after ``cross_group_``. With queries, these
    search among the other samples only. ``compute`` keeps the figures of each query in :attr:`per_query`.

    Args:
        distance: The distance; None is Euclidean.
        recall_at: The values of k in ``recall_at_k``.
        all_ranks: Whether to count every rank to the end, for ``map`` and ``mrr``.

    Raises:
        UserError: If a value of ``recall_at`` is not a positive integer.

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
            across = self.if_possible("cross_group", lambda: self._figures(samples, samples.groups))
            figures |= {f"cross_group_{name}": value for name, value in across.items()}
        return figures

    def _figures(self, samples: Gathered, groups: Tensor | None) -> dict[str, float]:
        query = gallery = Items(samples.embeddings, samples.labels, samples.ids, groups)
        rows = torch.arange(len(samples.ids))  # (Q,)
        if samples.queries is not None:
            asked = samples.queries.to(query.labels.device)  # (N,)
            query, gallery = query.each(lambda part: part[asked]), query.each(lambda part: part[~asked])
            rows = rows[asked.cpu()]
        deepest = None if self.all_ranks else max(self.recall_at, default=1)
        found = measure_queries(query, gallery, self.distance, shard=shard(), deepest=deepest)
        found = gather_queries(found, samples.embeddings.device)
        if groups is None:
            self.per_query = found._replace(rows=rows[found.rows])
        return retrieval_means(found, len(query.labels), self.recall_at, groups is not None, self.all_ranks)


class VerificationMetric(EmbeddingMetric):
    """:func:`verification_metrics` over all batches of all processes, each of which counts its shard of the pairs.

    Attributes ``threshold``, ``pairs`` and ``folds`` are passed on. The listed pairs are used in a set that has all of
    their samples; in any other set, all pairs of its samples are.

    Args:
        distance: The distance; None is Euclidean.
        far: The false accept rates of ``tar_at_far``.

    Raises:
        UserError: If a rate is not in (0, 1).
    """

    def __init__(self, distance: Distance | None = None, far: Sequence[float] = (1e-2, 1e-3, 1e-4)) -> None:
        super().__init__(distance)
        check_rates(far)
        self.far = tuple(far)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`verification_metrics`."""
        pairs = self.pairs
        if pairs is not None and not bool(torch.isin(pairs.to(samples.ids.device), samples.ids).all()):
            pairs = None
        items = Items(*samples[:3], None)
        return measure_pairs(items, self.distance, self.far, self.threshold, pairs, self.folds, shard())


class FewShotMetric(EmbeddingMetric):
    """:func:`few_shot_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        ways: Number of classes in an episode.
        shots: Numbers of support samples of each class; each gives figures of its own.
        queries: Most queries of a class in an episode.
        episodes: Number of episodes.
        seed: Seed of the episodes.

    Raises:
        UserError: If a number is too small.
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
        self.ways, self.shots = ways, tuple(shots)
        self._measure = partial(few_shot_metrics, ways=ways, queries=queries, episodes=episodes, seed=seed)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`few_shot_metrics`; a number of shots that the classes do not allow is left out."""
        figures: dict[str, float] = {}
        for shot in self.shots:
            measure = partial(self._measure, *samples[:3], distance=self.distance, shots=(shot,))
            figures |= self.if_possible(f"accuracy_{self.ways}_way_{shot}_shot", measure)
        return figures


class ClusteringMetric(EmbeddingMetric):
    """:func:`clustering_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        runs: Number of starts of k-means.
        seed: Seed of the starts.

    Raises:
        UserError: If there is no start; from ``compute`` if scikit-learn is missing, or cannot use the distance.
    """

    def __init__(self, distance: Distance | None = None, runs: int = 1, seed: int = 0) -> None:
        super().__init__(distance)
        check_runs(runs)
        self._measure = partial(clustering_metrics, runs=runs, seed=seed)

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`clustering_metrics`."""
        return self._measure(*samples[:3], distance=self.distance)


class InstanceMetric(EmbeddingMetric):
    """:func:`instance_metrics` over all batches of all processes, with the threshold that validation found best.

    Args:
        distance: The distance; None is Euclidean.

    Raises:
        UserError: From ``compute`` if samples have no groups, or scikit-learn is missing.
    """

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`instance_metrics`."""
        if samples.groups is None:
            raise UserError(
                "instances: expected samples with groups, got none; give the data module the attribute groups"
            )
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
        """Check each of the metrics."""
        for metric in self.metrics:
            metric.sought = self.sought
            metric.check_sought()

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """Compute the figures of all metrics."""
        figures: dict[str, float] = {}
        for metric in self.metrics:
            metric.threshold, metric.pairs, metric.folds = self.threshold, self.pairs, self.folds
            metric.left_out.clear()
            found = self.if_possible(type(metric).__name__, partial(metric.figures, samples))
            self.left_out += metric.left_out
            twice = figures.keys() & found.keys()
            if twice:
                raise UserError(f"evaluation: two metrics give {min(twice)}; expected different names")
            figures |= found
            if metric.per_query is not None:
                self.per_query, metric.per_query = metric.per_query, None
        return figures
