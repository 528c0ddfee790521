"""Reference verification figures and triplet shares: lists of pairs, and loops over thresholds."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from tests.oracles.retrieval import Measure, Side, euclidean


class Judged(NamedTuple):
    """Distances of pairs of one class and of pairs of two classes."""

    same: list[float]
    different: list[float]


def judge(own: Side, distance: Measure = euclidean) -> Judged:
    """Measure all pairs of different samples, the lower row first."""
    found = Judged([], [])
    for i, j in combinations(range(len(own.x)), 2):
        found[own.labels[i] != own.labels[j]].append(distance(own.x[i], own.x[j]))
    return found


def share(distances: list[float], threshold: float) -> float:
    """Compute the share of pairs that are accepted."""
    return sum(distance <= threshold for distance in distances) / len(distances)


def verification_figures(pairs: Judged, far: tuple[float, ...], threshold: float | None = None) -> dict[str, float]:
    """Compute every figure."""
    wins = sum((d > s) + 0.5 * (d == s) for s in pairs.same for d in pairs.different)
    figures = {"roc_auc": wins / len(pairs.same) / len(pairs.different), "eer": equal_error(pairs)}
    edges = sorted(set(pairs.same))
    for rate in far:
        figures[f"tar_at_far_{rate:.0e}".replace("e-0", "e-")] = max(
            [share(pairs.same, t) for t in edges if share(pairs.different, t) <= rate], default=0.0
        )
    balanced = {t: (share(pairs.same, t) + 1 - share(pairs.different, t)) / 2 for t in edges}
    figures["best_threshold"] = min(t for t in edges if balanced[t] == max(balanced.values()))
    figures["balanced_accuracy"] = max(balanced.values())
    if threshold is not None:
        tar, false = share(pairs.same, threshold), share(pairs.different, threshold)
        figures |= {
            "balanced_accuracy_at_threshold": (tar + 1 - false) / 2,
            "tar_at_threshold": tar,
            "far_at_threshold": false,
        }
    return figures | {"same_pairs": len(pairs.same), "different_pairs": len(pairs.different)}


def equal_error(pairs: Judged) -> float:
    """Walk along the curve, distance by distance, to where it crosses the line of equal errors."""
    before = (0.0, 0.0)
    for edge in sorted({*pairs.same, *pairs.different}):
        after = (share(pairs.different, edge), share(pairs.same, edge))
        if sum(after) >= 1:
            step = (1 - sum(before)) / (sum(after) - sum(before))
            return before[0] + step * (after[0] - before[0])
        before = after
    raise AssertionError("the curve ends at (1, 1)")


def triplet_shares(own: Side, margins: list[float], distance: Measure = euclidean) -> dict[str, list[float]]:
    """Compute the shares of easy, semi-hard and hard triplets at each margin, triplet by triplet."""
    size = len(own.x)
    kinds: dict[str, list[float]] = {name: [0.0] * len(margins) for name in ("easy", "semihard", "hard")}
    total = 0
    for a in range(size):
        for p in (p for p in range(size) if p != a and own.labels[p] == own.labels[a]):
            for n in (n for n in range(size) if own.labels[n] != own.labels[a]):
                total += 1
                d_ap, d_an = distance(own.x[a], own.x[p]), distance(own.x[a], own.x[n])
                for place, margin in enumerate(margins):
                    kind = "hard" if d_an <= d_ap else "semihard" if d_an <= d_ap + margin else "easy"
                    kinds[kind][place] += 1
    return {name: [count / total for count in counts] for name, counts in kinds.items()}
