"""Curves of training, from ``metrics.csv``."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_module.report.plots.curves import read_curves, training_plots
from tests.helpers.report_runs import csv


def test_curves_stop_where_training_did(tmp_path: Path) -> None:
    curves = read_curves(csv(tmp_path), before=9)
    steps, values = zip(*curves["train/loss"], strict=True)
    assert steps == tuple(range(9)) and values == pytest.approx([1 / (1 + step) for step in steps], abs=1e-3)
    assert curves["val/loss"] == [(8, 0.4)]
    plots = training_plots(curves)
    assert list(plots) == ["loss", "census", "validation"]
    assert [trace.name for trace in plots["loss"].data] == ["train", "val"]
    assert [trace.name for trace in plots["validation"].data] == ["map_at_r"]
    assert [trace.name for trace in plots["census"].data] == ["hard", "semi-hard", "easy"]
    assert {trace.stackgroup for trace in plots["census"].data} == {"shares"}
    sums = [sum(values) for values in zip(*(trace.y for trace in plots["census"].data), strict=True)]
    assert sums == pytest.approx([100] * 9)
    assert training_plots({}) == {}


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("step,epoch,train/loss\n" + "".join(f"{step},0,1\n" for step in range(9000)))
    assert len(read_curves(path)["train/loss"]) == 1500
