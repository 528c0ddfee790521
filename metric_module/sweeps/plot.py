"""The plot of a sweep: the figure against the margin, or another swept number, with a line for each other choice.

A search has no lines, as its numbers hardly repeat: it is a panel of points for each swept number.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from metric_module.report.page import COLOURS
from metric_module.report.plots.shares import DASHED
from metric_module.sweeps.settings import Estimate, Setting, to_number

MOST_LINES = 12
MOST_PANELS = 4
_DECADES = 30  # from this ratio on, numbers are on a log scale

Point = tuple[Setting, Estimate]


def plot_settings(found: Sequence[Setting], monitor: str) -> go.Figure:
    """Plot the figure of each setting with its interval.

    A numeric key becomes the horizontal axis, the margin before others; all of them do in a search, where no two
    settings differ in one number alone. Without a numeric key, each setting has a row. A dashed line is the figure of
    the raw inputs, if all settings have the same.

    Args:
        found: The settings; those without the figure are left out.
        monitor: The figure.
    """
    points = [(setting, made) for setting in found if (made := setting.estimate(monitor)) is not None]
    keys = numeric_keys([setting for setting, _ in points])
    plot = _plot(points, monitor, keys)
    raw = _raw(points, monitor)
    (plot.update_yaxes if keys else plot.update_xaxes)(range=_span(points, raw))
    if raw is not None:
        add_line = plot.add_hline if keys else plot.add_vline
        add_line(raw, line=DASHED, annotation_text="raw inputs", annotation_position="top right")
    return plot


def numeric_keys(found: Sequence[Setting]) -> list[str]:
    """List the swept keys whose values are numbers in every setting, ``margin`` before others."""
    keys = dict.fromkeys(key for setting in found for key in setting.choice)
    numbers = [key for key in keys if all(to_number(setting.choice.get(key)) is not None for setting in found)]
    several = [key for key in numbers if len({setting.choice[key] for setting in found}) > 1]
    return sorted(several, key=lambda key: key != "margin")


def _plot(points: Sequence[Point], monitor: str, keys: Sequence[str]) -> go.Figure:
    if not keys:
        return _rows(points, monitor)
    lines = _groups(points, keys[:1])
    search = len(lines) > MOST_LINES or (len(points) == len(lines) > 1 and len(keys) > 1)
    return _panels(points, monitor, keys) if search else _lines(lines, monitor, keys[0])


def _groups(points: Sequence[Point], keys: Sequence[str]) -> dict[str, list[Point]]:
    """Group the points by what they share besides some keys, in the order of their first point."""
    found: dict[str, list[Point]] = {}
    for setting, made in points:
        others = " ".join(f"{name}={value}" for name, value in setting.choice.items() if name not in keys)
        found.setdefault(others, []).append((setting, made))
    return found


def _lines(lines: dict[str, list[Point]], monitor: str, key: str) -> go.Figure:
    plot = go.Figure()
    for name, line in lines.items():
        line.sort(key=lambda point: _place(point, key))
        plot.add_scatter(**_marks(line, key), mode="lines+markers", name=escape(name))
    plot.update_layout(yaxis_title=escape(monitor), showlegend=len(lines) > 1)
    plot.update_xaxes(**_axis([point for line in lines.values() for point in line], key))
    return plot


def _panels(points: Sequence[Point], monitor: str, keys: Sequence[str]) -> go.Figure:
    """Plot a search: a panel for each number, with the points of each other choice in a colour, if these are few."""
    shown, groups = keys[:MOST_PANELS], _groups(points, keys)
    if len(groups) > MOST_LINES:
        groups = {"": list(points)}
    plot = make_subplots(cols=len(shown), shared_yaxes=True, horizontal_spacing=0.04)
    for column, key in enumerate(shown, 1):
        for (name, group), colour in zip(groups.items(), cycle(COLOURS)):
            look = {"marker": {"size": 9, "color": colour}, "legendgroup": name, "showlegend": column == 1}
            plot.add_scatter(**_marks(group, key), **look, mode="markers", name=escape(name), row=1, col=column)
        plot.update_xaxes(**_axis(points, key), col=column)
    plot.update_layout(yaxis_title=escape(monitor), showlegend=len(groups) > 1)
    return plot


def _marks(points: Sequence[Point], key: str) -> dict[str, Any]:
    """Return places, intervals and hover texts of some points against a number."""
    return {
        "x": [_place(point, key) for point in points],
        "y": [made.mean for _, made in points],
        "error_y": _error(points),
        "hovertext": [escape(setting.name) for setting, _ in points],
        "hovertemplate": "%{hovertext}<br>%{y:.4f}<extra></extra>",
    }


def _axis(points: Sequence[Point], key: str) -> dict[str, Any]:
    """Return title and type of the axis of a number."""
    places = [_place(point, key) for point in points]
    wide = min(places) > 0 and max(places) / min(places) > _DECADES
    return {"title_text": escape(key), **({"type": "log"} if wide else {})}


def _place(point: Point, key: str) -> float:
    return to_number(point[0].choice[key]) or 0.0


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
