"""The threshold of a validation set whose metric does not measure verification.

Shapes: N = samples, C = classes, P = pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.distributed import shard
from metric_module.evaluation.inputs import Items
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.verification.listed import listed_within
from metric_module.evaluation.verification.metrics import measure_pairs
from metric_module.keyed_random import combine, keyed_uniform

SAMPLES, SAME_PAIRS = 60_000, 150_000
"""Most samples, and pairs of one class, that :func:`best_threshold` measures: about a minute on two CPU cores."""


def with_threshold(metric: EmbeddingMetric, figures: Mapping[str, float]) -> dict[str, float]:
    """Add ``best_threshold`` to the figures of a set, unless the metric measures it or the data has no classes.

    If the samples do not allow it, it is left out and named in the metric's ``left_out``.

    Args:
        metric: The metric, after ``compute``; every process must call this.
        figures: The figures that it computed.
    """
    if metric.sought is not None or "best_threshold" in {*figures, *(metric.figure_names() or ())}:
        return dict(figures)
    found = metric.if_possible(
        "best_threshold",
        lambda: {"best_threshold": best_threshold(metric.gathered(), metric.distance, metric.pairs)},
    )
    return {**figures, **found}


def best_threshold(samples: Gathered, distance: Distance | None = None, pairs: Tensor | None = None) -> float:
    """Find the ``best_threshold`` of :func:`verification_metrics`; every process must call this.

    Of a set with more than 60,000 samples or 150,000 pairs of one class, the pairs within :func:`keyed_part` count.

    Args:
        samples: The samples of all processes.
        distance: The distance; None is Euclidean.
        pairs: Pairs of ids that verification compares, int64 ``(P, 2)``, used if the set has all of their samples;
            None is all pairs.

    Raises:
        NotComputableError: If there are no pairs of one class, or of two.
    """
    pairs = listed_within(pairs, samples.ids)
    items = Items(*samples[:3], None)
    if pairs is None:
        rows = keyed_part(samples.labels, samples.ids)
        items = items.each(lambda part: part[rows])
    return measure_pairs(items, distance, (), None, pairs, None, shard())["best_threshold"]


def keyed_part(labels: Tensor, ids: Tensor) -> Tensor:
    """Select all samples, or, beyond :data:`SAMPLES` or :data:`SAME_PAIRS`, a part that keeps to both.

    The part has the largest possible number of samples per class, of 512, 256, ..., 2, and as many classes as fit.
    Both are drawn by the hash of class and id, so that the part depends on neither order nor processes.

    Args:
        labels: Classes, int64 ``(N,)``.
        ids: Integers ``(N,)``, each once.

    Returns:
        Rows, ascending, int64.
    """
    classes, of, size = torch.unique(labels, return_inverse=True, return_counts=True)  # (C,), (N,), (C,)
    if len(labels) <= SAMPLES and int((size * (size - 1) // 2).sum()) <= SAME_PAIRS:
        return torch.arange(len(labels), device=labels.device)
    drawn = keyed_uniform(combine(0, classes.cpu()), 1)[:, 0].argsort().to(size.device)  # (C,)
    order = keyed_uniform(combine(1, ids.cpu()), 1)[:, 0].argsort().to(size.device)  # (N,)
    order = order[drawn.argsort()[of[order]].argsort(stable=True)]  # (N,) by class as drawn, then by sample as drawn
    size = size[drawn]
    place = torch.arange(len(order), device=size.device) - (size.cumsum(0) - size).repeat_interleave(size)  # (N,)
    most = 512  # samples of a class
    while True:
        kept = size.clamp(max=most)  # (C,)
        fits = kept.cumsum(0) <= SAMPLES  # (C,)
        if most == 2 or int((kept * (kept - 1) // 2)[fits].sum()) <= SAME_PAIRS:
            return order[(place < most) & fits.repeat_interleave(size)].sort().values
        most //= 2
