"""Reference selecting miners: loops over Python numbers; each returns a list of triplets, anchor by anchor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Triple = tuple[int, int, int]


def columns(mask: Tensor, anchor: int) -> list[int]:
    """List the references that a mask allows for an anchor, from left to right."""
    return [m for m in range(mask.shape[1]) if mask[anchor, m].item()]


def semihard_nearest(
    distances: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    pick: str,
    fallback: str,
    draws: Tensor,
    by_distance: bool,
) -> list[Triple]:
    """Select one negative for each positive pair; with ``by_distance``, random picks count from the nearest one."""
    found: list[Triple] = []
    for a in range(len(distances)):
        d: list[float] = distances[a].tolist()
        negatives = columns(negative, a)
        for slot, p in enumerate(columns(positive, a)):
            inside = [n for n in negatives if d[p] < d[n] <= d[p] + margin]
            easy = [n for n in negatives if d[n] > d[p] + margin]
            if inside and pick == "random":
                order = sorted(inside, key=lambda n: d[n]) if by_distance else inside
                found.append((a, p, order[math.floor(draws[a, slot].item() * len(inside))]))
                continue
            far = [n for n in negatives if d[n] == max(d[m] for m in negatives)]
            candidates = inside or {"skip": [], "hardest": negatives, "nearest_easy": easy, "farthest": far}[fallback]
            if candidates:
                found.append((a, p, min(candidates, key=lambda n: d[n])))
    return found


def easy_positive(distances: Tensor, positive: Tensor, negative: Tensor, kind: str) -> list[Triple]:
    """Select the nearest positive of each anchor, and its negative."""
    found: list[Triple] = []
    for a in range(len(distances)):
        d: list[float] = distances[a].tolist()
        positives = columns(positive, a)
        if not positives:
            continue
        p = min(positives, key=lambda m: d[m])
        candidates = [n for n in columns(negative, a) if kind == "nearest" or d[n] > d[p]]
        if candidates:
            found.append((a, p, min(candidates, key=lambda n: d[n])))
    return found


def random_negatives(positive: Tensor, negative: Tensor, per_pair: int, draws: Tensor) -> list[Triple]:
    """Select ``per_pair`` negatives for each positive pair, with replacement."""
    found: list[Triple] = []
    for a in range(len(positive)):
        negatives = columns(negative, a)
        for slot, p in enumerate(columns(positive, a)):
            for number in range(per_pair if negatives else 0):
                draw = draws[a, slot * per_pair + number].item()
                found.append((a, p, negatives[math.floor(draw * len(negatives))]))
    return found


def random_block(seed: int, rows: int = 12, width: int = 17, levels: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Draw distances ``(A, M)`` with many ties, and masks: about a third positive, half negative, the others neither.

    Row 0 has no positive, row 1 no negative, row 2 neither.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = torch.randint(0, levels, (rows, width), generator=generator).double() / 4
    kind = torch.randint(0, 6, (rows, width), generator=generator)
    positive, negative = kind < 2, kind > 2
    positive[[0, 2]] = False
    negative[[1, 2]] = False
    return distances, positive, negative


def random_draws(seed: int, rows: int, number: int) -> Tensor:
    """Draw uniform numbers ``(A, n)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, number, generator=generator, dtype=torch.float64)
