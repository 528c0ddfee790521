"""Reference retrieval: sort the gallery for each query, misses first among equal distances, and walk the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
Measure = Callable[[Row, Row], float]


class Side(NamedTuple):
    """Queries or gallery: vectors, labels, ids and groups."""

    x: NDArray[np.float64]
    labels: list[int]
    ids: list[int] | None
    groups: list[int] | None


def euclidean(query: Row, item: Row) -> float:
    """Compute the Euclidean distance of two vectors."""
    return float(np.sqrt(((query - item) ** 2).sum()))


def cosine(query: Row, item: Row) -> float:
    """Compute the cosine distance of two vectors."""
    return 1 - float(query @ item / np.sqrt((query @ query) * (item @ item)))


def manhattan(query: Row, item: Row) -> float:
    """Compute the sum of absolute differences of two vectors."""
    return float(np.abs(query - item).sum())


def dot_product(query: Row, item: Row) -> float:
    """Compute the negated inner product of two vectors."""
    return -float(query @ item)


def snr(query: Row, item: Row) -> float:
    """Compute the variance of the difference of two vectors, divided by that of the query."""
    return float(np.var(query - item) / np.var(query))


def positive_ranks(query: int, own: Side, gallery: Side, distance: Measure) -> list[int]:
    """List the ranks of the positives of one query."""
    items = []
    for row in range(len(gallery.x)):
        same_class = own.labels[query] == gallery.labels[row]
        if own.ids is not None and gallery.ids is not None and own.ids[query] == gallery.ids[row]:
            continue
        grouped = own.groups is not None and gallery.groups is not None and own.groups[query] == gallery.groups[row]
        if same_class and grouped:
            continue
        items.append((distance(own.x[query], gallery.x[row]), same_class))
    items.sort()  # at equal distance False, the miss, comes first
    return [place for place, (_, same_class) in enumerate(items, start=1) if same_class]


def retrieval_figures(
    own: Side, gallery: Side, distance: Measure = euclidean, recall_at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Compute every figure, query by query."""
    sums = {f"recall_at_{k}": 0.0 for k in recall_at} | {"r_precision": 0.0, "map_at_r": 0.0, "map": 0.0, "mrr": 0.0}
    used = 0
    for query in range(len(own.x)):
        ranks = positive_ranks(query, own, gallery, distance)
        if not ranks:
            continue
        used += 1
        size = len(ranks)
        for k in recall_at:
            sums[f"recall_at_{k}"] += any(rank <= k for rank in ranks)
        for found, rank in enumerate(ranks, start=1):
            sums["map"] += found / rank / size
            if rank <= size:
                sums["r_precision"] += 1 / size
                sums["map_at_r"] += found / rank / size
        sums["mrr"] += 1 / ranks[0]
    figures = {name: value / used for name, value in sums.items()}
    return figures | {"queries": float(used), "queries_without_positive": float(len(own.x) - used)}
