"""Loss, census and validation figures over the steps of training, from ``metrics.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from metric_module.report.plots.colours import COLOURS

MOST_POINTS = 1500
KINDS = {"easy": "easy", "semihard": "semi-hard", "hard": "hard"}


class Curve(NamedTuple):
    """A figure over steps."""

    steps: list[int]
    values: list[float]


def read_curves(path: Path, before: int | None = None) -> dict[str, Curve]:
    """Every figure of ``metrics.csv`` by name, thinned to some 1,500 points each.

    Args:
        path: The file.
        before: Leave out rows from this step on: what was read after training.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if before is None or int(row["step"]) < before]
    names = [name for name in (kept[0] if kept else {}) if name not in {"step", "epoch"}]
    curves = {name: _curve(kept, name) for name in names}
    return {name: curve for name, curve in curves.items() if curve.steps}


def _curve(rows: Sequence[dict[str, str]], name: str) -> Curve:
    points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    points = points[:: max(1, len(points) // MOST_POINTS)]
    return Curve([step for step, _ in points], [value for _, value in points])


def loss_plot(curves: dict[str, Curve]) -> go.Figure | None:
    """The loss while training and in validations; None if neither was logged."""
    plot = go.Figure()
    if "train/loss" in curves:
        plot.add_scatter(x=curves["train/loss"].steps, y=curves["train/loss"].values, name="train", mode="lines")
    if "val/loss" in curves:
        plot.add_scatter(x=curves["val/loss"].steps, y=curves["val/loss"].values, name="val", mode="lines+markers")
    plot.update_layout(height=300, xaxis_title="step", yaxis_title="loss", yaxis_rangemode="tozero", showlegend=True)
    return plot if plot.data else None


def census_plot(curves: dict[str, Curve]) -> go.Figure | None:
    """Shares of easy, semi-hard and hard triplets as areas that fill the plot; None if there is no census."""
    plot = go.Figure()
    for key, word in reversed(KINDS.items()):
        curve = curves.get(f"train/{key}")
        if curve is not None:
            plot.add_scatter(
                x=curve.steps,
                y=[100 * value for value in curve.values],
                name=word,
                mode="lines",
                stackgroup="census",
                line={"width": 0.5, "color": COLOURS[word]},
                hovertemplate="%{y:.1f} %",
            )
    plot.update_layout(height=300, xaxis_title="step", yaxis_title="% of valid triplets", yaxis_range=[0, 100])
    plot.update_layout(hovermode="x unified")
    return plot if plot.data else None


def validation_plot(curves: dict[str, Curve]) -> go.Figure | None:
    """Retrieval figures of the validations within training; None if there were none."""
    plot = go.Figure()
    for name in ("val/recall_at_1", "val/map_at_r", "val/r_precision"):
        if name in curves:
            plot.add_scatter(
                x=curves[name].steps, y=curves[name].values, name=name.removeprefix("val/"), mode="lines+markers"
            )
    plot.update_layout(height=300, xaxis_title="step", yaxis_title="val", showlegend=True)
    return plot if plot.data else None
