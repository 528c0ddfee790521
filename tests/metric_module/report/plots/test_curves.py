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


@pytest.mark.parametrize(
    ("monitor", "plotted", "expected"),
    [
        ("val/map_at_r", "validation", [(0.5, "before training"), (0.8, "raw inputs")]),
        ("val/loss", "loss", [(0.9, "before training")]),
        ("val/eer", "validation", []),
        ("train/loss", "loss", []),
        (None, "loss", []),
    ],
)
def test_dashed_lines_show_the_monitored_figure_before_training(
    tmp_path: Path, monitor: str | None, plotted: str, expected: list[tuple[float, str]]
) -> None:
    figures = {"raw": {"map_at_r": 0.8, "eer": 0.2}, "before": {"map_at_r": 0.5, "loss": 0.9}, "val": {"map_at_r": 0.7}}
    plots = training_plots(read_curves(csv(tmp_path), before=9), monitor, figures)
    lines = {name: [line.y0 for line in plot.layout.shapes] for name, plot in plots.items() if plot.layout.shapes}
    assert lines == ({plotted: [value for value, _ in expected]} if expected else {})
    labels = plots[plotted].layout.annotations
    assert [(label.y, label.text) for label in labels] == expected
    assert all(line.line.dash == "dash" and line.y0 == line.y1 for line in plots[plotted].layout.shapes)


@pytest.mark.parametrize(("before", "raw"), [(0.5, None), (None, 0.5), (float("nan"), 0.5)])
def test_a_figure_that_is_missing_has_no_line(tmp_path: Path, before: float | None, raw: float | None) -> None:
    figures = {name: {"map_at_r": value} for name, value in (("raw", raw), ("before", before)) if value is not None}
    plot = training_plots(read_curves(csv(tmp_path), before=9), "val/map_at_r", figures)["validation"]
    label = "raw inputs" if raw else "before training"
    assert [(one.y, one.text, one.yanchor) for one in plot.layout.annotations] == [(0.5, label, "bottom")]


@pytest.mark.parametrize(("before", "raw"), [(0.51, 0.52), (0.52, 0.51)])
def test_the_labels_lie_outside_the_two_lines(tmp_path: Path, before: float, raw: float) -> None:
    figures = {"raw": {"map_at_r": raw}, "before": {"map_at_r": before}}
    plot = training_plots(read_curves(csv(tmp_path), before=9), "val/map_at_r", figures)["validation"]
    anchors = {label.y: label.yanchor for label in plot.layout.annotations}
    assert anchors == {0.51: "top", 0.52: "bottom"}
