"""Loss, census and validation figures over the steps of training, from ``metrics.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import plotly.graph_objects as go

from metric_module.report.plots.shares import DASHED, add_shares

MOST_POINTS = 1500


LEVELS = {"before": ("before training", "left"), "raw": ("raw inputs", "right")}
"""Label and side of the line of each figure from before training, by its stage."""

Curve = list[tuple[int, float]]
"""Step and value of each point."""


def read_curves(path: Path, before: int | None = None) -> dict[str, Curve]:
    """Read every figure of ``metrics.csv``, thinned to about 1,500 points each.

    Args:
        path: The file.
        before: Number of training steps: rows from this step on come from the evaluation after training and are left
            out. None keeps all rows.

    Returns:
        The curves by the figure's name.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if before is None or int(row["step"]) < before]
    curves: dict[str, Curve] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in {"step", "epoch"}:
                curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return {name: curve[:: max(1, len(curve) // MOST_POINTS)] for name, curve in curves.items()}


def training_plots(
    curves: Mapping[str, Curve],
    monitor: str | None = None,
    figures: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> dict[str, go.Figure]:
    """Plot what was logged during training.

    Args:
        curves: The curves by the figure's name.
        monitor: The figure that selected the best checkpoint; it is plotted too if it is one of validation.
        figures: The figures by stage and name; ``before`` and ``raw`` add dashed lines to the plot of the monitor.

    Returns:
        ``loss``, ``census`` (shares of easy, semi-hard and hard triplets, as areas that fill the plot) and
        ``validation``; a plot without curves is left out.
    """
    loss, census, validation = go.Figure(), go.Figure(), go.Figure()
    own = [monitor] if monitor is not None and monitor.startswith("val/") else []
    for name in dict.fromkeys(["train/loss", "val/loss", *own, "val/recall_at_1", "val/map_at_r", "val/r_precision"]):
        if name in curves:
            steps, values = zip(*curves[name], strict=True)
            stage, _, figure = name.partition("/")
            plot, label = (loss, stage) if figure == "loss" else (validation, figure)
            plot.add_scatter(x=steps, y=values, name=label, mode="lines" if stage == "train" else "lines+markers")
            if name in own:
                _add_levels(plot, figures, figure)
    for kind in ("hard", "semi-hard", "easy"):
        curve = curves.get(f"train/{kind.replace('-', '')}")
        if curve is not None:
            add_shares(census, kind, *zip(*curve, strict=True))
    loss.update_layout(yaxis_title="loss", yaxis_rangemode="tozero")
    validation.update_layout(yaxis_title="val")
    plots = {"loss": loss, "census": census, "validation": validation}
    for plot in plots.values():
        plot.update_layout(height=300, xaxis_title="step", showlegend=True)
    return {name: plot for name, plot in plots.items() if plot.data}


def _add_levels(plot: go.Figure, figures: Mapping[str, Mapping[str, float]], name: str) -> None:
    """Add a dashed line for each finite figure from before training."""
    found = {stage: figures.get(stage, {}).get(name, math.nan) for stage in LEVELS}
    finite = {stage: value for stage, value in found.items() if math.isfinite(value)}
    for stage, value in finite.items():
        label, side = LEVELS[stage]
        away = "top" if value == max(finite.values()) else "bottom"  # so that the other line does not cross the label
        plot.add_hline(value, line=DASHED, annotation_text=label, annotation_position=f"{away} {side}")
