"""The nearest items of queries, and selections of samples.

Shapes: N = samples, Q = queries, G = items of the gallery, K = neighbours, D = embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.evaluation.exact import nearest as exact


class Items(NamedTuple):
    """The evaluated set, on the CPU.

    Attributes:
        embeddings: Embeddings ``(N, D)``.
        labels: Class of each, int64 ``(N,)``.
        ids: Id of each sample, int64 ``(N,)``.
        gallery: Rows that are searched, int64 ``(G,)``.
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    gallery: Tensor


class Neighbours(NamedTuple):
    """Rows of queries, int64 ``(Q,)``, of their nearest items, ``(Q, K)``, nearest first, and the distances."""

    queries: Tensor
    rows: Tensor
    distances: Tensor

    def take(self, places: Tensor) -> Neighbours:
        """Return some of the queries with their neighbours."""
        return Neighbours(*(part[places] for part in self))


def nearest(items: Items, queries: Tensor, count: int, distance: Distance | None = None) -> Neighbours:
    """Find the nearest items of each query, without the query itself.

    Args:
        items: The evaluated set.
        queries: Rows of the queries, int64 ``(Q,)``.
        count: Number of neighbours K; a smaller gallery gives fewer. Where the query is one of them, its row ends with
            itself at an infinite distance.
        distance: The distance; None is Euclidean.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [5.0]])
        >>> items = Items(line, torch.tensor([7, 7, 8]), torch.arange(3), torch.arange(3))
        >>> nearest(items, torch.tensor([0]), 2).rows.tolist()
        [[1, 2]]
    """
    ids, order = items.ids[items.gallery].sort()  # (G,), (G,)
    wanted = items.ids[queries]  # (Q,)
    place = torch.searchsorted(ids, wanted).clamp_(max=len(ids) - 1)  # (Q,)
    own = torch.where(ids[place] == wanted, order[place], -1)  # (Q,)
    found = exact.nearest(items.embeddings[queries], items.embeddings[items.gallery], count, distance, exclude=own)
    rows = torch.where(found.positions < 0, queries[:, None], items.gallery[found.positions])  # (Q, K)
    return Neighbours(queries, rows, found.distances)


def worst_and_spread(badness: Tensor, limit: int, worst: int) -> Tensor:
    """Select positions of values ``(Q,)``, largest first: the largest ones, and others spread over the rest.

    Args:
        badness: The values.
        limit: Most positions to select.
        worst: Number of them for the largest values.

    Returns:
        Int64 ``(n,)``; all positions if there are no more than ``limit``.

    Example:
        >>> worst_and_spread(torch.arange(10.0), limit=4, worst=2).tolist()
        [9, 8, 7, 0]
    """
    order = badness.argsort(descending=True, stable=True)
    if len(order) <= limit:
        return order
    return torch.cat([order[:worst], evenly(order[worst:], limit - worst)])


def evenly(values: Tensor, count: int) -> Tensor:
    """Select ``count`` of the values ``(n,)``, evenly from the first to the last; all if there are no more.

    Example:
        >>> evenly(torch.arange(7), 3).tolist()
        [0, 3, 6]
    """
    if len(values) <= count:
        return values
    return values[torch.linspace(0, len(values) - 1, count).round().long()]


def whole_classes(labels: Tensor, limit: int) -> Tensor:
    """Return the rows, int64 ``(n,)``, of the first whole classes that fit into ``limit``, but of at least two.

    Example:
        >>> whole_classes(torch.tensor([5, 3, 3, 9, 9]), limit=3).tolist()
        [0, 1, 2]
    """
    _, place, size = torch.unique(labels, return_inverse=True, return_counts=True)
    fitting = max(2, int((size.cumsum(0) <= limit).sum())) if len(size) else 0
    rows: Tensor = (place < fitting).nonzero()[:, 0]
    return rows
