"""The nearest items of some queries, and which queries to show.

Shapes: N = samples, Q = queries, G = items of the gallery, K = neighbours, D = embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance, Euclidean
from metric_module.functional import full_precision

CELLS_AT_ONCE = 1 << 24
WORST = 2 / 3


class Items(NamedTuple):
    """What was read, on the CPU.

    Attributes:
        embeddings: ``(N, D)``.
        labels: Class of each, int64 ``(N,)``.
        ids: Which sample each is, int64 ``(N,)``.
        gallery: Rows of what is searched, int64 ``(G,)``.
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    gallery: Tensor


class Neighbours(NamedTuple):
    """Rows of the nearest items, nearest first, int64 ``(Q, K)``, and their distances ``(Q, K)``."""

    rows: Tensor
    distances: Tensor


def nearest(items: Items, queries: Tensor, count: int, distance: Distance | None = None) -> Neighbours:
    """The nearest items of each query, itself left out.

    Args:
        items: Everything that was read.
        queries: Rows of the queries, int64 ``(Q,)``.
        count: K, at most.
        distance: None is Euclidean.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [5.0]])
        >>> items = Items(line, torch.tensor([7, 7, 8]), torch.arange(3), torch.arange(3))
        >>> nearest(items, torch.tensor([0]), 2).rows.tolist()
        [[1, 2]]
    """
    measure = Euclidean() if distance is None else distance
    searched = items.embeddings[items.gallery]  # (G, D)
    step = max(1, CELLS_AT_ONCE // max(1, len(searched)))
    count = min(count, len(searched))
    none = torch.zeros(0, count)
    rows, near = [none.long()], [none.to(searched)]
    with torch.no_grad(), full_precision("cpu"):
        for part in torch.split(queries, step):
            found = measure(items.embeddings[part], searched)  # (A, G)
            found[items.ids[part][:, None] == items.ids[items.gallery]] = torch.inf
            values, columns = found.topk(count, dim=1, largest=False)  # (A, K), (A, K)
            near.append(values)
            rows.append(items.gallery[columns])
    return Neighbours(torch.cat(rows), torch.cat(near))


def worst_and_spread(badness: Tensor, limit: int, worst: float = WORST) -> Tensor:
    """Places of some values ``(Q,)``, largest first: the very largest, and others spread evenly over the rest.

    Args:
        badness: The larger the worse.
        limit: How many places at most.
        worst: Share of the limit for the largest.

    Returns:
        Int64 ``(n,)``; all places if there are no more than ``limit``.

    Example:
        >>> worst_and_spread(torch.arange(10.0), limit=4, worst=0.5).tolist()
        [9, 8, 7, 0]
    """
    order = badness.argsort(descending=True, stable=True)
    if len(order) <= limit:
        return order
    first = int(limit * worst)
    return torch.cat([order[:first], evenly(order[first:], limit - first)])


def evenly(values: Tensor, count: int) -> Tensor:
    """So many of the values ``(n,)``, from the first to the last, in their order; all if there are no more.

    Example:
        >>> evenly(torch.arange(7), 3).tolist()
        [0, 3, 6]
    """
    if len(values) <= count:
        return values
    return values[torch.linspace(0, len(values) - 1, count).round().long()]


def whole_classes(labels: Tensor, limit: int) -> Tensor:
    """Rows of as many whole classes as fit into ``limit``, in order of label, int64 ``(n,)``; at least two classes.

    Example:
        >>> whole_classes(torch.tensor([5, 3, 3, 9, 9]), limit=3).tolist()
        [0, 1, 2]
    """
    _, place, size = torch.unique(labels, return_inverse=True, return_counts=True)
    fitting = max(2, int((size.cumsum(0) <= limit).sum())) if len(size) else 0
    rows: Tensor = (place < fitting).nonzero()[:, 0]
    return rows
