"""Queries with their nearest neighbours, and pairs of classes whose queries find the other class.

Shapes: N = samples, Q = queries, K = neighbours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.report.samples.neighbours import Items, Neighbours


class Query(NamedTuple):
    """A query of the gallery.

    Attributes:
        id: Id of its sample.
        right: Whether its nearest neighbour has its class.
        found: The rank of its nearest positive, in words.
        map_at_r: Its MAP@R.
        near: Id and distance of each neighbour, and whether it has the query's class; nearest first.
    """

    id: int
    right: bool
    found: str
    map_at_r: float
    near: list[tuple[int, float, bool]]


class Confusion(NamedTuple):
    """A pair of classes: the number of their queries that find the other class, of all, and a sample of each class."""

    wrong: int
    queries: int
    one: int
    other: int


def gallery(items: Items, near: Neighbours, first: Tensor, map_at_r: Tensor, exact_to: int | None) -> list[Query]:
    """Describe queries for the gallery.

    Args:
        items: The evaluated set.
        near: The queries and their neighbours.
        first: Rank of the nearest positive of each query, int64 ``(Q,)``.
        map_at_r: MAP@R of each query, ``(Q,)``.
        exact_to: Ranks beyond this one are lower bounds; None if every rank is exact.
    """
    found = []
    for row, others, distances, rank, figure in zip(
        near.queries.tolist(), near.rows, near.distances.tolist(), first.tolist(), map_at_r.tolist(), strict=True
    ):
        right = (items.labels[others] == items.labels[row]).tolist()  # K
        shown = zip(items.ids[others].tolist(), distances, right, strict=True)
        nearest = sorted((one for one in shown if one[1] < torch.inf), key=lambda one: one[1:])  # a tie is a miss
        later = "" if exact_to is None or rank <= exact_to else " or later"
        words = "right at rank 1" if rank == 1 else f"first right at rank {rank:,}{later}"
        found.append(Query(int(items.ids[row]), rank == 1, words, figure, nearest))
    return found


def confusions(items: Items, near: Neighbours, sizes: Counter[int]) -> list[Confusion]:
    """Count the queries of each pair of classes whose nearest neighbour is of the other class.

    Args:
        items: The evaluated set.
        near: The queries whose nearest neighbour is of another class, and their neighbours.
        sizes: Number of queries of each class.

    Returns:
        The pairs of classes, the most confused first.
    """
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for row, other in zip(near.queries.tolist(), near.rows[:, 0].tolist(), strict=True):
        ends = sorted((int(items.labels[place]), int(items.ids[place])) for place in (row, other))
        found[ends[0][0], ends[1][0]].append((ends[0][1], ends[1][1]))
    ranked = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [Confusion(len(ids), sizes[one] + sizes[two], *ids[0]) for (one, two), ids in ranked if one != two]
