"""The plot of a sweep: the figure against the margin, or another swept number, with a line for each other choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from metric_module.sweeps.settings import Setting

MOST_LINES = 12
_DECADES = 30  # beyond this ratio a number is spread over powers of ten


def plot_settings(found: Sequence[Setting], monitor: str) -> go.Figure:
    """The figure of each setting, with its interval.

    A numeric key is the horizontal axis, the margin before others. Without one, a row for each setting.

    Args:
        found: Settings that have the figure.
        monitor: The figure.
    """
    key = numeric_key(found)
    return _rows(found, monitor) if key is None else _lines(found, monitor, key)


def numeric_key(found: Sequence[Setting]) -> str | None:
    """The swept key whose values are numbers in every setting: ``margin`` if it is one, else the first."""
    keys = dict.fromkeys(key for setting in found for key in setting.choice)
    numbers = [key for key in keys if all(_number(setting.choice.get(key)) is not None for setting in found)]
    several = [key for key in numbers if len({setting.choice[key] for setting in found}) > 1]
    return "margin" if "margin" in several else several[0] if several else None


def _lines(found: Sequence[Setting], monitor: str, key: str) -> go.Figure:
    lines: dict[str, list[tuple[float, Setting]]] = {}
    for setting in found:
        others = " ".join(f"{name}={value}" for name, value in setting.choice.items() if name != key)
        lines.setdefault(others, []).append((_number(setting.choice[key]) or 0.0, setting))
    search = len(lines) > MOST_LINES  # and no grid: points then, told apart by the pointer
    if search:
        lines = {"": [point for line in lines.values() for point in line]}
    mode = "markers" if search else "lines+markers"
    plot = go.Figure()
    for name, points in lines.items():
        ordered = sorted(points, key=lambda point: point[0])
        plot.add_trace(_trace([x for x, _ in ordered], [setting for _, setting in ordered], monitor, name, mode))
    plot.update_layout(xaxis_title=escape(key), yaxis_title=escape(monitor), showlegend=len(lines) > 1)
    plot.update_yaxes(range=_span(found, monitor))
    places = [x for line in lines.values() for x, _ in line]
    if min(places) > 0 and max(places) / min(places) > _DECADES:
        plot.update_xaxes(type="log")
    return plot


def _trace(places: Sequence[float], found: Sequence[Setting], monitor: str, name: str, mode: str) -> go.Scatter:
    means, halves = _means(found, monitor)
    text = [escape(setting.name) for setting in found]
    error = {"type": "data", "array": halves, "thickness": 1.5, "width": 4}
    shown = {"x": list(places), "y": means, "error_y": error, "mode": mode, "name": escape(name)}
    return go.Scatter(shown, hovertext=text, hovertemplate="%{hovertext}<br>%{y:.4f}<extra></extra>")


def _rows(found: Sequence[Setting], monitor: str) -> go.Figure:
    means, halves = _means(found, monitor)
    names = [escape(setting.name) for setting in found]
    error = {"type": "data", "array": halves, "thickness": 1.5, "width": 4}
    plot = go.Figure(go.Scatter({"x": means, "y": names, "error_x": error, "mode": "markers", "marker": {"size": 9}}))
    plot.update_traces(hovertemplate="%{y}<br>%{x:.4f}<extra></extra>")
    plot.update_layout(xaxis_title=escape(monitor), height=120 + 34 * len(found))
    plot.update_xaxes(range=_span(found, monitor))
    plot.update_yaxes(autorange="reversed", type="category")
    return plot


def _means(found: Sequence[Setting], monitor: str) -> tuple[list[float], list[float]]:
    """Mean and half interval of each setting; no interval is none at all."""
    made = [setting.estimate(monitor) for setting in found]
    means = [one.mean if one else math.nan for one in made]
    return means, [one.half or 0.0 if one else 0.0 for one in made]


def _span(found: Sequence[Setting], monitor: str) -> list[float] | None:
    """What the axis shows: every mean; the interval of two seeds may be so wide that it would flatten all the rest."""
    means, halves = _means(found, monitor)
    spread, widest = max(means) - min(means), max(halves)
    if widest <= 2 * spread or not spread:
        return None
    return [min(means) - 2 * spread, max(means) + 2 * spread]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
