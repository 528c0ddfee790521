"""Reference retrieval in a relation: one query and one reference at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor


def naive_pair_metrics(
    distances: Tensor, positive: Tensor, ignored: Tensor, at: Sequence[int], tie: Callable[[float, float], bool]
) -> dict[str, float]:
    """Compute the figures from a matrix of distances ``(Q, M)`` and bool masks of its shape.

    ``tie(d, limit)`` says whether a reference at distance d is as close as a positive at the limit, or closer.
    """
    sums: dict[str, float] = {}
    count = 0
    for row in range(len(distances)):
        near = [column for column in range(distances.shape[1]) if positive[row, column]]
        others = [c for c in range(distances.shape[1]) if not positive[row, c] and not ignored[row, c]]
        if not near:
            continue
        count += 1
        values = distances[row].tolist()
        ranks = []
        for place, column in enumerate(sorted(near, key=values.__getitem__), start=1):
            ranks.append(place + sum(tie(values[other], values[column]) for other in others))
        figures = {"map": sum(j / rank for j, rank in enumerate(ranks, start=1)) / len(ranks), "mrr": 1 / ranks[0]}
        for k in at:
            figures[f"recall_at_{k}"] = sum(rank <= k for rank in ranks) / len(ranks)
            figures[f"hit_rate_at_{k}"] = float(ranks[0] <= k)
            ideal = sum(1 / math.log2(1 + j) for j in range(1, min(k, len(ranks)) + 1))
            figures[f"ndcg_at_{k}"] = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / ideal
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value
    means = {name: value / count for name, value in sums.items()}
    return means | {"queries": float(count), "queries_without_positive": float(len(distances) - count)}
