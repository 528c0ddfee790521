"""Which samples a report shows: the worst first, then a spread.

Shapes: N = samples, Q = queries, K = neighbours, n = points of the map.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.report.contents import Run
from metric_module.report.samples.gallery import SHOWN_PAIRS, Confusion, Query, confusions, queries_of
from metric_module.report.samples.mined import mined_ids
from metric_module.report.samples.neighbours import evenly, nearest, worst_and_spread

QUERIES = 300
NEIGHBOURS = 6
CONFUSED = 5000
POINTS = 1500


class Chosen(NamedTuple):
    """What is shown.

    Attributes:
        queries: Of the gallery, worst first.
        pairs: The most confused pairs of classes.
        confused: How many such pairs there are.
        points: Rows of the map's points, int64 ``(n,)``.
        right: Whether each point's nearest neighbour is of its class; None for what is no query.
    """

    queries: list[Query]
    pairs: list[Confusion]
    confused: int
    points: Tensor
    right: list[bool | None]

    def ids(self, run: Run) -> set[int]:
        """Ids of every sample that is shown."""
        found = {query.id for query in self.queries} | {one[0] for query in self.queries for one in query.near}
        found |= {id for pair in self.pairs for id in (pair.one, pair.other)}
        return found | mined_ids(run.mined) | set(run.items.ids[self.points].tolist())


def choose(run: Run) -> Chosen:
    """Choose what to show of a run; the same of the same run, always."""
    items, found = run.items, run.queries
    badness = 1 - found.map_at_r + 1e-9 * found.first  # (Q,)
    places = worst_and_spread(badness, QUERIES)  # (q,)
    rows = found.rows[places]
    near = nearest(items, rows, NEIGHBOURS, run.distance)
    queries = queries_of(items, rows.tolist(), found.first[places].tolist(), found.map_at_r[places].tolist(), near)
    wrong = evenly(found.rows[found.first > 1], CONFUSED)
    sizes = Counter(items.labels[found.rows].tolist())
    pairs = confusions(items, wrong.tolist(), nearest(items, wrong, 1, run.distance), sizes)
    points = _points(len(items.ids), torch.cat([rows, near.rows.flatten()]))
    first = dict(zip(found.rows.tolist(), (found.first == 1).tolist(), strict=True))
    return Chosen(queries, pairs[:SHOWN_PAIRS], len(pairs), points, [first.get(row) for row in points.tolist()])


def _points(count: int, pictured: Tensor) -> Tensor:
    """Rows for the map: all, or those that the gallery has pictures of and a spread over the rest."""
    if count <= POINTS:
        return torch.arange(count)
    chosen = torch.zeros(count, dtype=torch.bool)  # (N,)
    chosen[evenly(torch.unique(pictured), POINTS // 2)] = True
    chosen[evenly((~chosen).nonzero()[:, 0], POINTS - int(chosen.sum()))] = True
    return chosen.nonzero()[:, 0]
