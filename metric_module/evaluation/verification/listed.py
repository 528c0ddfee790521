"""Verification of the pairs that a protocol such as LFW lists, and its folds.

Shapes: N = samples, P = pairs, T = different thresholds, F = folds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.evaluation.inputs import Items
from metric_module.evaluation.verification.pair_counts import PairCounts, Pairs


def listed_within(pairs: Tensor | None, ids: Tensor) -> Tensor | None:
    """Return the listed pairs ``(P, 2)`` if a set has all of their samples, and None, for all pairs, otherwise.

    Args:
        pairs: Ids of pairs ``(P, 2)``, or None.
        ids: Ids of the set ``(N,)``.
    """
    return pairs if pairs is not None and bool(torch.isin(pairs.to(ids.device), ids).all()) else None


def listed_distances(samples: Items, pairs: Pairs, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the distances of pairs of ids.

    Args:
        samples: The samples.
        pairs: The samples' pairs, which measure distances.
        listed: Ids ``(P, 2)``.

    Returns:
        Distances ``(P,)`` as the pairs measure them, and whether each pair is of one class, bool ``(P,)``.

    Raises:
        UserError: If an id belongs to no sample, or the shape or type is wrong.
    """
    if listed.ndim != 2 or listed.shape[1] != 2 or listed.dtype != torch.int64:
        raise UserError(f"pairs: expected an int64 tensor of shape [P, 2], got {tuple(listed.shape)} {listed.dtype}")
    rows = torch.arange(len(samples.labels), device=samples.labels.device)
    ids, order = (rows if samples.ids is None else samples.ids).sort()  # (N,), (N,)
    listed = listed.to(ids.device).contiguous()
    place = torch.searchsorted(ids, listed).clamp(max=max(0, len(ids) - 1))  # (P, 2)
    unknown = listed[ids[place] != listed]
    if len(unknown):
        raise UserError(f"pairs: expected ids of samples, got {int(unknown[0])} ({len(unknown)} unknown)")
    first, second = order[place].unbind(1)
    return pairs.paired(first, second), samples.labels[first] == samples.labels[second]


def count_listed(distances: Tensor, same: Tensor, further: Tensor) -> PairCounts:
    """Count listed pairs by distance.

    Args:
        distances: Distances of the pairs, ``(P,)``.
        same: Whether a pair is of one class, bool ``(P,)``.
        further: Thresholds in addition to the distances of pairs of one class, ``(n,)``.
    """
    positive, negative = distances[same].sort().values, distances[~same].sort().values
    thresholds = torch.unique(torch.cat([positive, further]))  # (T,)
    upto = torch.searchsorted(positive, thresholds, right=True) - torch.searchsorted(positive, thresholds)  # (T,)
    closer = torch.searchsorted(negative, thresholds)
    return PairCounts(thresholds, upto, closer, torch.searchsorted(negative, thresholds, right=True), len(negative))


def fold_accuracy(distances: Tensor, same: Tensor, folds: Tensor) -> dict[str, float]:
    """Compute the accuracy on each fold, at the threshold that is best on the others.

    Args:
        distances: Distances of the pairs, ``(P,)``.
        same: Whether a pair is of one class, bool ``(P,)``.
        folds: Fold of each pair, integers ``(P,)``.

    Returns:
        ``accuracy_F_fold``, the mean over the F folds, and its standard error.

    Raises:
        UserError: If the shapes differ, or there is only one fold.
    """
    if folds.shape != distances.shape:
        raise UserError(f"folds: expected a tensor of shape [{len(distances)}], got {tuple(folds.shape)}")
    which = torch.unique(folds).tolist()
    if len(which) < 2:
        raise UserError(f"folds: expected at least 2, got {len(which)}")
    found = []
    for fold in which:
        held = (folds == fold).to(distances.device)
        threshold = _most_right(distances[~held], same[~held])
        found.append(float(((distances[held] <= threshold) == same[held]).double().mean()))
    accuracy = torch.tensor(found, dtype=torch.float64)
    name = f"accuracy_{len(which)}_fold"
    return {name: float(accuracy.mean()), f"{name}_standard_error": float(accuracy.std() / len(which) ** 0.5)}


def _most_right(distances: Tensor, same: Tensor) -> float:
    """Find the smallest threshold with the most right answers."""
    ordered, order = distances.sort()
    right = torch.cat([same.new_zeros(1, dtype=torch.int64), torch.where(same[order], 1, -1).cumsum(0)])
    last_of_its_value = torch.cat([same.new_ones(1), ordered[1:] != ordered[:-1], same.new_ones(1)])
    best = int(right.masked_fill(~last_of_its_value, torch.iinfo(torch.int64).min).argmax())
    return float(ordered[best - 1]) if best else -math.inf
