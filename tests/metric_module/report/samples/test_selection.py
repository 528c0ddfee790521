"""The samples that a report shows."""

from __future__ import annotations

from pathlib import Path

import torch

from metric_module.report.samples.selection import choose
from tests.helpers.report_runs import items, made_up


def test_the_gallery_is_worst_first_and_marks_right_neighbours(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    chosen = choose(run)
    assert len(chosen.queries) == 30
    assert [query.map_at_r for query in chosen.queries] == sorted(query.map_at_r for query in chosen.queries)
    for query in chosen.queries:
        assert query.near[0][2] == query.right
        label = int(run.items.labels[query.id - 100])
        assert all(right == (int(run.items.labels[id - 100]) == label) for id, _, right in query.near)
        assert all(id != query.id for id, _, _ in query.near) and len(query.near) == 6
    assert 0 < sum(query.right for query in chosen.queries) < 30


def test_a_large_set_is_shown_in_part(tmp_path: Path) -> None:
    run = made_up(tmp_path, items=items(classes=500, each=4), before=None)
    chosen = choose(run)
    assert len(chosen.queries) == 300 and len(chosen.points) == 1500
    assert chosen.confused > len(chosen.pairs) == 20
    assert len(chosen.ids(run)) < 300 * 7 + 1500
    again = choose(run)
    assert again.queries == chosen.queries and torch.equal(again.points, chosen.points)
