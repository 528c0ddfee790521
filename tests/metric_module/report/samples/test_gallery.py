"""Queries of the gallery, and confused pairs of classes."""

from __future__ import annotations

from collections import Counter

import torch

from metric_module.report.samples.gallery import confusions, gallery
from metric_module.report.samples.neighbours import Items, nearest
from tests.helpers.report_runs import items


def test_ranks_that_were_not_counted_to_the_end_are_lower_bounds() -> None:
    """With ``all_ranks=false`` the metric does not distinguish ranks beyond its largest cutoff."""
    samples = items()
    near = nearest(samples, torch.arange(3), 2)
    first, figure = torch.tensor([1, 10, 11]), torch.zeros(3)
    words = ["right at rank 1", "first right at rank 10", "first right at rank 11"]
    assert [query.found for query in gallery(samples, near, first, figure, None)] == words
    assert [query.found for query in gallery(samples, near, first, figure, 10)] == [*words[:2], f"{words[2]} or later"]


def test_confused_pairs_are_counted_both_ways() -> None:
    line = torch.tensor([[0.0], [1.0], [1.1], [0.1], [9.0], [9.5]])
    samples = Items(line, torch.tensor([7, 8, 7, 8, 9, 9]), torch.arange(6), torch.arange(6))
    rows = torch.tensor([0, 1, 2, 3])
    (pair,) = confusions(samples, nearest(samples, rows, 1), Counter({7: 2, 8: 2, 9: 2}))
    assert (pair.wrong, pair.queries) == (4, 4)
    assert {int(samples.labels[pair.one]), int(samples.labels[pair.other])} == {7, 8}
