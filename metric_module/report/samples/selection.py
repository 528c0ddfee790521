"""The samples that a report shows: the worst queries and a spread over the rest, always the same for the same run.

Shapes: N = samples, Q = queries, K = neighbours, n = points of the map.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.report.contents import Run
from metric_module.report.samples.gallery import Confusion, Query, confusions, gallery
from metric_module.report.samples.mined import mined_ids
from metric_module.report.samples.neighbours import evenly, nearest, worst_and_spread

QUERIES = 300
WORST_QUERIES = 200
NEIGHBOURS = 6
CONFUSED = 5000
SHOWN_PAIRS = 20
POINTS = 1500


class Chosen(NamedTuple):
    """The samples that are shown.

    Attributes:
        queries: Queries of the gallery, worst first.
        pairs: The most confused pairs of classes.
        confused: Number of all confused pairs of classes.
        points: Rows of the map's points, int64 ``(n,)``.
        right: Whether the nearest neighbour of each point has its class; None for a point that is not a query.
    """

    queries: list[Query]
    pairs: list[Confusion]
    confused: int
    points: Tensor
    right: list[bool | None]

    def ids(self, run: Run) -> set[int]:
        """Return the ids of all samples that are shown."""
        found = {query.id for query in self.queries} | {one[0] for query in self.queries for one in query.near}
        found |= {id for pair in self.pairs for id in (pair.one, pair.other)}
        return found | mined_ids(run.mined) | set(run.items.ids[self.points].tolist())


def choose(run: Run) -> Chosen:
    """Choose the samples that the report of a run shows."""
    items, found = run.items, run.queries
    badness = 1 - found.map_at_r + 1e-9 * found.first  # (Q,)
    worst = worst_and_spread(badness, QUERIES, WORST_QUERIES)  # (at most 300,)
    wrong = evenly((found.first > 1).nonzero()[:, 0], CONFUSED)
    places, back = torch.unique(torch.cat([worst, wrong]), return_inverse=True)
    near = nearest(items, found.rows[places], NEIGHBOURS, run.distance)
    shown, confused = near.take(back[: len(worst)]), near.take(back[len(worst) :])
    queries = gallery(items, shown, found.first[worst], found.map_at_r[worst], run.ranked_to)
    pairs = confusions(items, confused, Counter(items.labels[found.rows].tolist()))
    points = _points(len(items.ids), torch.cat([shown.queries, shown.rows.flatten()]))
    first = dict(zip(found.rows.tolist(), (found.first == 1).tolist(), strict=True))
    return Chosen(queries, pairs[:SHOWN_PAIRS], len(pairs), points, [first.get(row) for row in points.tolist()])


def _points(count: int, pictured: Tensor) -> Tensor:
    """Return the rows of the map: all, or some of those with pictures in the gallery and a spread over the rest."""
    if count <= POINTS:
        return torch.arange(count)
    chosen = torch.zeros(count, dtype=torch.bool)  # (N,)
    chosen[evenly(torch.unique(pictured), POINTS // 2)] = True
    chosen[evenly((~chosen).nonzero()[:, 0], POINTS - int(chosen.sum()))] = True
    return chosen.nonzero()[:, 0]
