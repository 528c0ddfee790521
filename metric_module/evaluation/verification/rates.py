"""Rates of acceptance from counts of pairs.

Shapes: T = different thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.verification.pair_counts import PairCounts, Pairs


def check_rates(far: Sequence[float]) -> None:
    """Check false accept rates.

    Args:
        far: The rates, different and in (0, 1).

    Raises:
        UserError: If one is not in (0, 1), or comes twice.
    """
    if not all(0 < rate < 1 for rate in far) or len(set(far)) != len(far):
        raise UserError(f"far: expected different rates in (0, 1), got {list(far)}")


def accept_rates(counts: PairCounts) -> tuple[Tensor, Tensor]:
    """Compute true and false accept rates ``(T,)``, float64, on the CPU.

    Args:
        counts: Counts of all pairs.

    Raises:
        UserError: If there are no pairs of one class, or of two.
    """
    same = int(counts.same.sum())
    if not same or not counts.different:
        raise NotComputableError(
            f"labels: expected pairs of one class and pairs of two, got {same} of one and {counts.different} of two"
        )
    return counts.same.cumsum(0).cpu().double() / same, counts.within.cpu().double() / counts.different


def rates(counts: PairCounts, pairs: Pairs, far: Sequence[float], threshold: float | None) -> dict[str, float]:
    """Compute the figures of :func:`verification_metrics` that need no folds.

    Args:
        counts: Counts of all pairs; their thresholds include ``threshold``.
        pairs: The pairs that were counted.
        far: The false accept rates.
        threshold: A distance, or None.

    Raises:
        UserError: If there are no pairs of one class, or of two.
    """
    tar, false = accept_rates(counts)  # (T,), (T,)
    balanced = (tar + 1 - false) / 2  # (T,)
    best = int(balanced.argmax())
    figures = {"roc_auc": _area(counts), "eer": _equal_error(counts)}
    for rate in far:
        allowed = tar[false <= rate]
        figures[rate_name(rate)] = float(allowed[-1]) if len(allowed) else 0.0
    figures["best_threshold"] = _up(float(pairs.own(counts.thresholds)[best]))
    figures["balanced_accuracy"] = float(balanced[best])
    if threshold is not None:
        at = int(torch.searchsorted(counts.thresholds, pairs.inner(threshold)))
        figures["balanced_accuracy_at_threshold"] = float(balanced[at])
        figures |= {"tar_at_threshold": float(tar[at]), "far_at_threshold": float(false[at])}
    return figures | {"same_pairs": float(counts.same.sum()), "different_pairs": float(counts.different)}


def rate_name(rate: float, kind: str = "tar") -> str:
    """Name the true accept rate, or a rate of another kind, at a false accept rate.

    Args:
        rate: The false accept rate.
        kind: Abbreviation of the rate to name.

    Example:
        >>> rate_name(0.001)
        'tar_at_far_1e-3'
    """
    digits, exponent = f"{rate:e}".split("e")
    return f"{kind}_at_far_{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _area(counts: PairCounts) -> float:
    beyond = 2.0 * counts.different - counts.closer.double() - counts.within.double()  # (T,)
    total = math.fsum((counts.same.double() * beyond).tolist())
    return total / (2.0 * counts.different * float(counts.same.sum()))


def _equal_error(counts: PairCounts) -> float:
    """Intersect the line through the points of the curve with the line of equal errors."""
    false = torch.stack([counts.closer, counts.within], dim=1).flatten().double() / counts.different  # (2 T,)
    accepted = counts.same.cumsum(0)  # (T,)
    true = torch.stack([accepted - counts.same, accepted], dim=1).flatten().double() / accepted[-1]  # (2 T,)
    at = int((false + true >= 1).double().argmax())
    x, y = (float(false[at - 1]), float(true[at - 1])) if at else (0.0, 0.0)
    dx, dy = float(false[at]) - x, float(true[at]) - y
    return x + dx * (1 - x - y) / (dx + dy)


def _up(value: float) -> float:
    """Round up to a float32."""
    rounded = torch.tensor(value, dtype=torch.float32)
    if float(rounded) < value:
        rounded = torch.nextafter(rounded, torch.tensor(math.inf))
    return float(rounded)
