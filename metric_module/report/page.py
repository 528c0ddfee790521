"""The skeleton that every page shares: one self-contained file, for phones and wide screens, light and dark."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_HERE = Path(__file__).parent
# The policy makes "no network" a rule; plotly.js makes functions out of text for its WebGL plots.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"
_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title>
<style>
$style</style>
$plotly</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
<script>
$script</script>
</body>
</html>
"""
)
_LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "colorway": ["#3b82c4", "#d9772b", "#3f9c5a", "#b05fc2", "#c9a227", "#d1495b", "#2aa5a0", "#8a8a8a"],
    "margin": {"l": 56, "r": 12, "t": 16, "b": 48},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "hovermode": "closest",
}


def page(title: str, body: str, *, plots: bool = True) -> str:
    """A whole HTML document that needs no other file.

    CSS variables for colours of one's own: ``--ink``, ``--muted``, ``--paper``, ``--card``, ``--line``, ``--accent``,
    ``--bad``; each has a light and a dark value. Classes: ``card`` and ``muted``.

    Args:
        title: Plain text.
        body: HTML; whatever comes from outside is already escaped.
        plots: Whether plotly.js (4 MB) is put in, for :func:`figure`.

    Example:
        >>> "<h1>a &lt; b</h1>" in page("a < b", "", plots=False)
        True
    """
    return _PAGE.substitute(
        title=escape(title),
        body=body,
        policy=_POLICY,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        plotly=f"<script>{get_plotlyjs()}</script>\n" if plots else "",
    )


def figure(plot: go.Figure, name: str) -> str:
    """A plot that fills the width of the page, and whose text and lines follow its theme.

    Args:
        plot: Its own layout wins over the page's; its template does not. plotly reads ``<b>`` and the like in names and
            titles: escape what comes from outside.
        name: Of the element, one per page: letters, digits and dashes.

    Example:
        >>> figure(go.Figure(go.Scatter(y=[1, 2])), "curve").splitlines()[0]
        '<div class="figure" id="curve"></div>'
    """
    spec = json.loads(plot.to_json())
    given = {key: value for key, value in spec["layout"].items() if key != "template"}
    text = json.dumps({"data": spec["data"], "layout": {**_LAYOUT, **given}}).replace("<", "\\u003c")
    place = escape(name)
    data = f'<script type="application/json" data-figure="{place}">{text}</script>'
    return f'<div class="figure" id="{place}"></div>\n{data}'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], name: str, *, numeric: Collection[int] = ()) -> str:
    """A table that sorts by the column that is pressed, and scrolls sideways where the screen is narrow.

    Args:
        header: Plain text of each column.
        rows: Plain text of each cell; numeric ones sort by the number they begin with, cells without one come last.
        name: Of the element, one per page.
        numeric: Positions of the columns that are numbers.

    Example:
        >>> "<td>a&amp;b</td>" in table(["x"], [["a&b"]], "one")
        True
    """
    head = "".join(
        f'<th{_kind(place, numeric)}><button type="button">{escape(text)}</button></th>'
        for place, text in enumerate(header)
    )
    lines = [
        "<tr>" + "".join(f"<td{_kind(place, numeric)}>{escape(cell)}</td>" for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0"><table id="{escape(name)}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def command(text: str) -> str:
    """A command with a button that copies it.

    Args:
        text: Plain text.

    Example:
        >>> command("a && b")
        '<div class="command"><code>a &amp;&amp; b</code><button type="button">Copy</button></div>'
    """
    return f'<div class="command"><code>{escape(text)}</code><button type="button">Copy</button></div>'


def _kind(place: int, numeric: Collection[int]) -> str:
    return ' class="number"' if place in numeric else ""
