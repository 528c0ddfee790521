"""Reference triplet loss: three nested loops over Python numbers in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Reference:
    """Loss and counts of the reference."""

    loss: Tensor
    selected: list[tuple[int, int, int]] = field(default_factory=list)
    active: int = 0
    easy: int = 0
    semihard: int = 0
    hard: int = 0
    lone: int = 0


def pair(name: str, q: Tensor, r: Tensor) -> Tensor:
    """Compute one distance from its definition; zero, without gradient, for equal rows."""
    if name == "DotProduct":
        return -(q * r).sum()
    if torch.equal(q, r):
        return (q * 0).sum() + (r * 0).sum()
    if name == "Euclidean":
        return (q - r).square().sum().sqrt()
    if name == "SquaredEuclidean":
        return (q - r).square().sum()
    if name == "Manhattan":
        return (q - r).abs().sum()
    if name == "Cosine":
        return 1 - (q * r).sum() / (q.square().sum().sqrt() * r.square().sum().sqrt())
    if name == "SNR":
        noise = q - r
        return (noise - noise.mean()).square().mean() / (q - q.mean()).square().mean()
    raise ValueError(name)


def category(d_ap: float, d_an: float, margin: float) -> str:
    """Classify a triplet by the table of the definition."""
    if d_an <= d_ap:
        return "hard"
    return "semihard" if d_an <= d_ap + margin else "easy"


def chosen_by(miner: str, kind: str, is_hardest: bool) -> bool:
    """Return whether a miner selects a triplet of this category."""
    return is_hardest if miner == "BatchHard" else miner == "All" or miner.lower() == kind


def triplet_reference(
    query: Tensor,
    labels: list[int],
    distance: str,
    miner: str,
    margin: float,
    loss: str,
    reduction: str,
    reference: Tensor | None = None,
    reference_labels: list[int] | None = None,
    same: Callable[[int, int], bool] | None = None,
    named: set[tuple[int, int, int]] | None = None,
) -> Reference:
    """Compute loss and counts by looping over every anchor, positive and negative.

    ``same(a, m)`` says that reference m is anchor a itself. ``named`` are the triplets of a selecting miner other than
    BatchHard, which is worked out here.
    """
    own = reference is None
    target = query if reference is None else reference
    target_labels = labels if reference_labels is None else reference_labels
    same = same or (lambda a, m: own and a == m)
    terms: list[Tensor] = []
    found = Reference(loss=query.sum() * 0)
    for a in range(len(query)):
        d = [pair(distance, query[a], target[m]) for m in range(len(target))]
        positives = [m for m in range(len(target)) if target_labels[m] == labels[a] and not same(a, m)]
        negatives = [m for m in range(len(target)) if target_labels[m] != labels[a] and not same(a, m)]
        if not positives or not negatives:
            found.lone += 1
            continue
        hardest = (max(d[p].item() for p in positives), min(d[n].item() for n in negatives))
        taken = False
        for p in positives:
            for n in negatives:
                kind = category(d[p].item(), d[n].item(), margin)
                setattr(found, kind, getattr(found, kind) + 1)
                is_hardest = not taken and (d[p].item(), d[n].item()) == hardest
                if not ((a, p, n) in named if named is not None else chosen_by(miner, kind, is_hardest)):
                    continue
                taken = True
                found.selected.append((a, p, n))
                if loss == "soft" or (kind != "easy" and d[n].item() < d[p].item() + margin):
                    excess = d[p] - d[n] + margin
                    terms.append(torch.logaddexp(excess, torch.zeros_like(excess)) if loss == "soft" else excess)
                    found.active += 1
    total = torch.stack(terms).sum() if terms else found.loss
    divisor = {"sum": 1, "mean": len(found.selected), "mean_active": found.active}[reduction]
    found.loss = total / max(1, divisor)
    return found
