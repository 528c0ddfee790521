"""Verification: whether two samples are of one class, decided by their distance alone.

Shapes: N = samples, T = thresholds, P = pairs, F = folds, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.evaluation.inputs import Items, check_items
from metric_module.evaluation.verification.listed import count_listed, fold_accuracy, listed_distances
from metric_module.evaluation.verification.pair_counts import count_pairs, pairs_of, sum_counts
from metric_module.evaluation.verification.rates import accept_rates, check_rates, rates
from metric_module.functional import full_precision


class RocCurve(NamedTuple):
    """Accept rates at each different distance of a pair of one class, float64 ``(T,)``.

    Attributes:
        thresholds: The distances, ascending.
        far: False accept rate: share of the pairs of two classes at this distance or closer.
        tar: True accept rate: share of the pairs of one class at this distance or closer.
    """

    thresholds: Tensor
    far: Tensor
    tar: Tensor


def verification_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    distance: Distance | None = None,
    far: Sequence[float] = (1e-2, 1e-3, 1e-4),
    threshold: float | None = None,
    pairs: Tensor | None = None,
    folds: Tensor | None = None,
) -> dict[str, float]:
    r"""Measure how well a threshold on the distance separates pairs of one class from pairs of two classes.

    Over all pairs of different samples, or over the given ones; a pair is accepted if its distance is at most t:

    - ``roc_auc``: area under the true accept rate over the false accept rate, ties counted half
    - ``eer``: the rate at which false accepts and false rejects are equal, on the line through the points of the curve
    - ``tar_at_far_x`` = max of TAR(t) over the t with FAR(t) <= x
    - ``best_threshold``: the smallest t with the largest ``balanced_accuracy`` = (TAR(t) + 1 - FAR(t)) / 2, rounded up
      to float32
    - with a threshold that was found on other data: ``balanced_accuracy_at_threshold``,
      ``tar_at_threshold`` and ``far_at_threshold``
    - with F folds of pairs: ``accuracy_F_fold``, the mean over folds of the accuracy at the threshold that is best on
      the other folds, and ``accuracy_F_fold_standard_error``, as on LFW (Huang et al. 2007).

    The counts are exact, those of float64 distances, and depend neither on the order of rows nor on blocks. Memory is
    O(N D), plus the number of pairs of one class.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        ids: Integers ``(N,)``, each once; the default is the row number.
        distance: The distance; None is Euclidean.
        far: The false accept rates x, each in (0, 1).
        threshold: A distance, or None.
        pairs: Ids of pairs ``(P, 2)``; None is all pairs.
        folds: Fold of each pair, integers ``(P,)``, or None.

    Returns:
        The figures, and the numbers of pairs, ``same_pairs`` and ``different_pairs``.

    Raises:
        UserError: If a shape, type or number is wrong, or there are no pairs of one class, or of two.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0], [5.0]])
        >>> verification_metrics(points, torch.tensor([7, 7, 8, 8]), far=(0.1,))  # doctest: +NORMALIZE_WHITESPACE
        {'roc_auc': 0.9375, 'eer': 0.16666666666666666, 'tar_at_far_1e-1': 0.5, 'best_threshold': 2.0,
         'balanced_accuracy': 0.875,
         'same_pairs': 2.0, 'different_pairs': 4.0}
    """
    check_rates(far)
    samples = check_items(embeddings, labels, ids, None)
    return measure_pairs(samples, distance, far, threshold, pairs, folds)


def measure_pairs(
    samples: Items,
    distance: Distance | None,
    far: Sequence[float],
    threshold: float | None,
    pairs: Tensor | None,
    folds: Tensor | None,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, float]:
    """Compute the figures of :func:`verification_metrics` from checked samples.

    Args:
        samples: The samples.
        distance: The distance; None is Euclidean.
        far: The false accept rates x, each in (0, 1).
        threshold: A distance, or None.
        pairs: Ids of pairs ``(P, 2)``; None is all pairs.
        folds: Fold of each pair, integers ``(P,)``, or None.
        shard: ``(rank, world_size)``. With more than one process, each counts in every world_size-th tile of all pairs,
            and every process must call this.

    Raises:
        UserError: If a shape, type or number is wrong, or there are no pairs of one class, or of two.
    """
    with torch.no_grad(), full_precision(samples.embeddings.device.type):
        measured = pairs_of(samples.embeddings, distance)
        further = measured.inner(threshold)  # (0,) or (1,)
        if pairs is None:
            counts = count_pairs(measured, samples.labels, further, shard)
            return rates(counts if shard[1] == 1 else sum_counts(counts), measured, far, threshold)
        found, same = listed_distances(samples, measured, pairs)
    figures = rates(count_listed(found, same, further), measured, far, threshold)
    return figures if folds is None else figures | fold_accuracy(found, same, folds)


def roc_curve(
    embeddings: Tensor, labels: Tensor, ids: Tensor | None = None, *, distance: Distance | None = None
) -> RocCurve:
    """Compute the curve whose figures :func:`verification_metrics` returns, over all pairs.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        ids: Integers ``(N,)``, each once; the default is the row number.
        distance: The distance; None is Euclidean.

    Raises:
        UserError: If a shape, type or number is wrong, or there are no pairs of one class, or of two.
    """
    samples = check_items(embeddings, labels, ids, None)
    with torch.no_grad(), full_precision(samples.embeddings.device.type):
        measured = pairs_of(samples.embeddings, distance)
        counts = count_pairs(measured, samples.labels, measured.inner(None))
    tar, far = accept_rates(counts)
    return RocCurve(measured.own(counts.thresholds).cpu(), far, tar)
