"""The plot of a sweep: the figure against the margin, or another swept number, with a line for each other choice."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from metric_module.report.plots.shares import DASHED
from metric_module.sweeps.settings import Estimate, Setting, to_number

MOST_LINES = 12
_DECADES = 30  # from this ratio on, numbers are on a log scale

Point = tuple[Setting, Estimate]


def plot_settings(found: Sequence[Setting], monitor: str) -> go.Figure:
    """Plot the figure of each setting with its interval.

    A numeric key becomes the horizontal axis, the margin before others. Without one, each setting has a row. A dashed
    line is the figure of the raw inputs, if all settings have the same.

    Args:
        found: The settings; those without the figure are left out.
        monitor: The figure.
    """
    points = [(setting, made) for setting in found if (made := setting.estimate(monitor)) is not None]
    key = numeric_key([setting for setting, _ in points])
    plot = _rows(points, monitor) if key is None else _lines(points, monitor, key)
    raw = _raw(points, monitor)
    (plot.update_xaxes if key is None else plot.update_yaxes)(range=_span(points, raw))
    if raw is not None:
        add_line = plot.add_vline if key is None else plot.add_hline
        add_line(raw, line=DASHED, annotation_text="raw inputs", annotation_position="top right")
    return plot


def numeric_key(found: Sequence[Setting]) -> str | None:
    """Return the swept key whose values are numbers in every setting: ``margin`` if it is one, else the first."""
    keys = dict.fromkeys(key for setting in found for key in setting.choice)
    numbers = [key for key in keys if all(to_number(setting.choice.get(key)) is not None for setting in found)]
    several = [key for key in numbers if len({setting.choice[key] for setting in found}) > 1]
    return "margin" if "margin" in several else several[0] if several else None


def _lines(points: Sequence[Point], monitor: str, key: str) -> go.Figure:
    lines: dict[str, list[tuple[float, Point]]] = {}
    for setting, made in points:
        others = " ".join(f"{name}={value}" for name, value in setting.choice.items() if name != key)
        lines.setdefault(others, []).append((to_number(setting.choice[key]) or 0.0, (setting, made)))
    search = len(lines) > MOST_LINES  # a random search, not a grid: single points, named on hover
    if search:
        lines = {"": [point for line in lines.values() for point in line]}
    plot = go.Figure()
    for name, line in lines.items():
        line.sort(key=lambda point: point[0])
        places, ordered = zip(*line, strict=True)
        plot.add_scatter(
            x=places,
            y=[made.mean for _, made in ordered],
            error_y=_error(ordered),
            mode="markers" if search else "lines+markers",
            name=escape(name),
            hovertext=[escape(setting.name) for setting, _ in ordered],
            hovertemplate="%{hovertext}<br>%{y:.4f}<extra></extra>",
        )
    plot.update_layout(xaxis_title=escape(key), yaxis_title=escape(monitor), showlegend=len(lines) > 1)
    every = [place for line in lines.values() for place, _ in line]
    if min(every) > 0 and max(every) / min(every) > _DECADES:
        plot.update_xaxes(type="log")
    return plot


def _rows(points: Sequence[Point], monitor: str) -> go.Figure:
    plot = go.Figure()
    plot.add_scatter(
        x=[made.mean for _, made in points],
        y=[escape(setting.name) for setting, _ in points],
        error_x=_error(points),
        mode="markers",
        marker={"size": 9},
        hovertemplate="%{y}<br>%{x:.4f}<extra></extra>",
    )
    plot.update_layout(xaxis_title=escape(monitor), height=120 + 34 * len(points))
    plot.update_yaxes(autorange="reversed", type="category")
    return plot


def _error(points: Sequence[Point]) -> dict[str, Any]:
    """Return error bars for the intervals; a single repetition has none."""
    return {"type": "data", "array": [made.half or 0.0 for _, made in points], "thickness": 1.5, "width": 4}


def _raw(points: Sequence[Point], monitor: str) -> float | None:
    """Return the mean figure of the raw inputs, if all settings have the same to four digits."""
    means = [made.mean for setting, _ in points if (made := setting.start("raw", monitor)) is not None]
    return means[0] if len(means) == len(points) and len({f"{mean:.4f}" for mean in means}) == 1 else None


def _span(points: Sequence[Point], raw: float | None) -> list[float] | None:
    """Return the range of the axis if intervals would flatten the differences of the means; None for plotly's own."""
    means = [made.mean for _, made in points]
    spread, widest = max(means) - min(means), max(made.half or 0.0 for _, made in points)
    if widest <= 2 * spread or not spread:
        return None
    places = means if raw is None else [*means, raw]
    return [min(places) - 2 * spread, max(places) + 2 * spread]
