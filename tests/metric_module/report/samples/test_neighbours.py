"""Nearest items, and selections of samples."""

from __future__ import annotations

import math

import torch

from metric_module.report.samples.neighbours import nearest, whole_classes, worst_and_spread
from tests.helpers.report_runs import items


def test_neighbours_leave_the_query_out_and_search_the_gallery() -> None:
    samples = items()
    found = nearest(samples, torch.arange(30), 4)
    exact = torch.cdist(samples.embeddings.double(), samples.embeddings.double()).fill_diagonal_(math.inf)
    torch.testing.assert_close(found.distances.double(), exact.sort().values[:, :4], atol=1e-6, rtol=0)
    assert bool((found.rows != torch.arange(30)[:, None]).all())
    half = samples._replace(gallery=torch.arange(0, 30, 2))
    assert set(nearest(half, torch.arange(30), 3).rows.flatten().tolist()) <= set(range(0, 30, 2))


def test_a_cap_keeps_the_worst_and_a_spread() -> None:
    badness = torch.arange(100.0)
    places = worst_and_spread(badness, 30, 20).tolist()
    assert places[:20] == list(range(99, 79, -1))
    assert len(places) == 30 and places[20] == 79 and places[-1] == 0
    assert len(worst_and_spread(badness, 100, 20)) == 100


def test_whole_classes_fit_but_two_always() -> None:
    labels = torch.arange(6).repeat_interleave(5)
    assert len(whole_classes(labels, 14)) == 10 and len(whole_classes(labels, 1)) == 10
    assert len(whole_classes(labels, 1000)) == 30
