"""Distances of pairs, with the margin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metric_module.report.plots.separation import separation_plot, shares_at
from tests.helpers.report_runs import MARGIN, made_up


def test_the_margin_is_drawn_beyond_the_median_positive(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    assert run.before is not None and run.after is not None
    plot = separation_plot([("before", run.before), ("after", run.after)], MARGIN)
    bands = [shape for shape in plot.layout.shapes if shape.type == "rect"]
    assert [band.x1 - band.x0 for band in bands] == pytest.approx([MARGIN, MARGIN])
    assert bands[1].x0 == pytest.approx(float(run.after.positive_quantiles[3]))
    for trace in plot.data:
        width = torch.tensor(trace.x).diff()
        assert float((torch.tensor(trace.y)[:-1] * width).sum()) == pytest.approx(1)
    shares = [float(word.split()[0]) for word in shares_at(run.after, MARGIN).split(", ")]
    assert sum(shares) == pytest.approx(100, abs=0.2) and min(shares) > 0
    assert not [shape for shape in separation_plot([("", run.after)], 0).layout.shapes if shape.type == "rect"]
