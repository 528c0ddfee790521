"""HTML pages from the templates of this folder: one file each, for phones and wide screens, light and dark.

Jinja2 escapes every value that a template prints, so that nothing from outside is read as HTML.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from metric_module.errors import printable

_HERE = Path(__file__).parent
COLOURS = ("#3b82c4", "#d9772b", "#3f9c5a", "#b05fc2", "#c9a227", "#d1495b", "#2aa5a0", "#8a8a8a")
"""Colours of the lines and points of a plot, in this order."""

_LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "colorway": COLOURS,
    "margin": {"l": 56, "r": 12, "t": 16, "b": 48},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "hovermode": "closest",
}


class Link(NamedTuple):
    """A cell that leads to another page: its plain text, and the address relative to this page."""

    text: str
    href: str


class Table(NamedTuple):
    """The content of a table, for the macro ``table``.

    Attributes:
        name: Id of the element; no other element of the page has it.
        header: Plain text above each column.
        rows: Plain text of each cell, or a link.
        numeric: Positions of the columns with numbers. They are aligned to the right and sort by the number that a cell
            begins with; cells without one come last.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    numeric: Collection[int] = ()


@cache
def templates() -> Environment:
    """Return the environment of the templates in ``templates/``: autoescape on, an error for each unknown name."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"asset": _asset, "plotly": lambda: Markup(get_plotlyjs())}
    made.filters |= {"spec": plot_spec, "thousands": "{:,}".format, "printable": printable}
    return made


def render(name: str, title: str, values: Mapping[str, Any], *, plots: bool = True) -> str:
    """Render an HTML document that needs no other file.

    Args:
        name: The template: ``run``, ``census``, ``sweep``, or ``page`` for an empty page.
        title: Plain text.
        values: The template's variables.
        plots: Whether to include plotly.js (4 MB), which the macro ``figure`` needs.

    Returns:
        The document.

    Example:
        >>> "<h1>a &lt; b</h1>" in render("page", "a < b", {}, plots=False)
        True
    """
    return templates().get_template(f"{name}.html.jinja").render({**values, "title": title, "plots": plots})


def plot_spec(plot: go.Figure) -> dict[str, Any]:
    """Return a plot as plain values, with the layout that all plots of a page share.

    Args:
        plot: Its own layout takes precedence over the shared one; its template is dropped. plotly reads ``<b>`` and
            similar tags in names and titles: escape text from outside.

    Example:
        >>> plot_spec(go.Figure(go.Scatter(y=[1, 2]), {"hovermode": "x"}))["layout"]["hovermode"]
        'x'
    """
    spec = json.loads(plot.to_json())
    own = {key: value for key, value in spec["layout"].items() if key != "template"}
    return {"data": spec["data"], "layout": {**_LAYOUT, **own}}


def _asset(name: str) -> Markup:
    """Return a style sheet or a script of this folder as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))
