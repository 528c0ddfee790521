"""Metrics of classes, for Lightning and for any loop: they share how samples are collected."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.distributed import shard
from metric_module.errors import UserError
from metric_module.evaluation.clustering import check_runs, clustering_metrics
from metric_module.evaluation.few_shot import accuracy_name, check_episodes, few_shot_metrics
from metric_module.evaluation.inputs import Items
from metric_module.evaluation.instances import instance_metrics
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.preflight import Labelled, Missing, too_few_classes, without_two_kinds
from metric_module.evaluation.verification.listed import listed_within
from metric_module.evaluation.verification.metrics import measure_pairs
from metric_module.evaluation.verification.rates import check_rates, rate_name

# Figures whose names depend on options, as patterns.
VERIFICATION = (
    "roc_auc",
    "eer",
    "tar_at_*",
    "far_at_*",
    "best_threshold",
    "balanced_accuracy*",
    "*_pairs",
    "accuracy_*_fold*",
)


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

    main_figure = "roc_auc"

    def __init__(self, distance: Distance | None = None, far: Sequence[float] = (1e-2, 1e-3, 1e-4)) -> None:
        super().__init__(distance)
        check_rates(far)
        self.far = tuple(far)

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`verification_metrics`."""
        names = ["roc_auc", "eer", *map(rate_name, self.far), "best_threshold", "balanced_accuracy"]
        names += ["same_pairs", "different_pairs"]
        accuracy = f"accuracy_{folds}_fold"
        return names if folds is None else [*names, accuracy, f"{accuracy}_standard_error"]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`verification_metrics`."""
        pairs = listed_within(self.pairs, samples.ids)
        items = Items(*samples[:3], None)
        return measure_pairs(items, self.distance, self.far, self.threshold, pairs, self.folds, shard())

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: verification needs pairs of one class and pairs of two."""
        reason = without_two_kinds(data)
        return [] if reason is None else [Missing(VERIFICATION, reason)]


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
        self._names = [accuracy_name(ways, shot) for shot in shots]
        self.main_figure = self._names[0]
        self._measure = partial(few_shot_metrics, ways=ways, queries=queries, episodes=episodes, seed=seed)

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`few_shot_metrics`."""
        return [word for name in self._names for word in (name, f"{name}_interval")]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`few_shot_metrics`; a number of shots that the classes do not allow is left out."""
        figures: dict[str, float] = {}
        for shot in self.shots:
            measure = partial(self._measure, *samples[:3], distance=self.distance, shots=(shot,))
            figures |= self.if_possible(accuracy_name(self.ways, shot), measure)
        return figures

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: an episode needs enough classes of enough samples."""
        reasons = [(shot, too_few_classes(data, self.ways, shot)) for shot in self.shots]
        return [Missing([f"{accuracy_name(self.ways, shot)}*"], reason) for shot, reason in reasons if reason]


class ClusteringMetric(EmbeddingMetric):
    """:func:`clustering_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        runs: Number of starts of k-means.
        seed: Seed of the starts.

    Raises:
        UserError: If there is no start; from ``compute`` if scikit-learn is missing, or cannot use the distance.
    """

    main_figure = "nmi"

    def __init__(self, distance: Distance | None = None, runs: int = 1, seed: int = 0) -> None:
        super().__init__(distance)
        check_runs(runs)
        self._measure = partial(clustering_metrics, runs=runs, seed=seed)

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`clustering_metrics`."""
        return ["nmi", "ami"]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`clustering_metrics`."""
        return self._measure(*samples[:3], distance=self.distance)

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: clustering needs two classes."""
        classes = len(torch.unique(data.labels))
        reason = f"expected at least 2 classes, got {classes} (datamodule: labels, split)"
        return [] if classes >= 2 else [Missing(self.figure_names(), reason)]


class InstanceMetric(EmbeddingMetric):
    """:func:`instance_metrics` over all batches of all processes, with the threshold that validation found best.

    Args:
        distance: The distance; None is Euclidean.

    Raises:
        UserError: From ``compute`` if samples have no groups, or scikit-learn is missing.
    """

    main_figure = "ari"

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`instance_metrics`."""
        return ["ari", "groups", "best_threshold"]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`instance_metrics`."""
        if samples.groups is None:
            raise UserError(
                "instances: expected samples with groups, got none; give the data module the attribute groups"
            )
        return instance_metrics(*samples[:3], groups=samples.groups, distance=self.distance, threshold=self.threshold)

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: instances are told apart within groups."""
        reason = "the data has no groups (datamodule: groups)"
        return [Missing(self.figure_names(), reason)] if data.groups is None else []


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
        self.main_figure = next((one.main_figure for one in metrics if one.main_figure is not None), None)

    @override
    def figure_names(self, folds: int | None = None) -> list[str] | None:
        """List the figures of all metrics; None if one of them does not name its own."""
        found: list[str] = []
        for metric in self.metrics:
            names = metric.figure_names(folds)
            if names is None:
                return None
            found += names
        return found

    @override
    def lower_is_better(self, figure: str) -> bool:
        """Ask the metric that has the figure; if none names it, one that does not name its figures."""
        owners = [one for one in self.metrics if figure in (one.main_figure, *(one.figure_names() or ()))]
        owners += [one for one in self.metrics if one.figure_names() is None]
        return owners[0].lower_is_better(figure) if owners else super().lower_is_better(figure)

    @override
    def check_sought(self) -> None:
        """Check each of the metrics."""
        for metric in self.metrics:
            metric.sought = self.sought
            metric.check_sought()

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """List those of each of the metrics."""
        return [found for metric in self.metrics for found in metric.missing(data)]

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
