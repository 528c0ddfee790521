"""The skeleton of a page: whole, self-contained, and nothing from outside is read as HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from metric_module.report.page import command, figure, page, table

NASTY = "</script><img src=x onerror=alert(1)>&\"'"


class Tags(HTMLParser):
    """Keeps the tags that a browser would see, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("plots", [True, False])
def test_a_page_needs_no_other_file(plots: bool) -> None:
    text = page("mine", "<p>body</p>", plots=plots)
    tags = Tags(text).seen
    assert not [tag for tag, attributes in tags if {"src", "href"} & set(attributes)]
    assert ("Plotly" in text.split("</head>")[0]) == plots
    assert "default-src 'none'" in text and "@import" not in text
    assert text.count("<p>body</p>") == 1


def test_nothing_from_outside_is_html() -> None:
    plot = go.Figure(go.Scatter(x=[1], y=[2], name=NASTY))
    parts = [figure(plot, "plot"), table([NASTY], [[NASTY]], "rows", numeric=[0]), command(NASTY)]
    text = page(NASTY, "".join(parts), plots=False)
    assert "img" not in {tag for tag, _ in Tags(text).seen}
    assert "onerror" in text


def test_a_figure_keeps_its_own_layout_and_takes_the_rest_from_the_page() -> None:
    text = figure(go.Figure(go.Scatter(y=[1, 2]), go.Layout(hovermode="x", template="plotly_dark")), "curve")
    found = re.search(r'data-figure="curve">(.*)</script>', text)
    assert found is not None
    spec = json.loads(found[1])
    assert spec["data"][0]["y"] == [1, 2]
    assert spec["layout"]["hovermode"] == "x"
    assert spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert "template" not in spec["layout"]


def test_numeric_columns_are_marked() -> None:
    text = table(["name", "n"], [["a", "1"], ["b", "2"]], "rows", numeric=[1])
    assert text.count('class="number"') == 3
    assert text.count("<tr>") == 3
