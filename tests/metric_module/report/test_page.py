"""The templates: pages need no other file, and text from outside is never read as HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import plotly.graph_objects as go
import pytest
from jinja2 import UndefinedError

from metric_module.report.page import Link, Table, plot_spec, render, templates

NASTY = "</script><img src=x onerror=alert(1)>&\"'"


class Tags(HTMLParser):
    """The tags that a browser would see, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def macro(name: str, *arguments: Any) -> str:
    """Render one of the macros that the templates share."""
    return str(getattr(templates().get_template("macros.html.jinja").module, name)(*arguments))


@pytest.mark.parametrize("plots", [True, False])
def test_a_page_needs_no_other_file(plots: bool) -> None:
    text = render("page", "mine", {}, plots=plots)
    tags = Tags(text).seen
    assert not [tag for tag, attributes in tags if {"src", "href"} & set(attributes)]
    assert ("Plotly" in text.split("</head>")[0]) == plots
    assert "default-src 'none'" in text and "@import" not in text
    assert text.count("<h1>mine</h1>") == 1


def test_text_from_outside_is_not_read_as_html() -> None:
    plot = go.Figure(go.Scatter(x=[1], y=[2], name=NASTY))
    table = Table("rows", [NASTY], [[NASTY]], numeric=[0])
    parts = [macro("figure", plot, "plot"), macro("table", table), macro("command", NASTY)]
    for text in [*parts, render("page", NASTY, {}, plots=False)]:
        assert "img" not in {tag for tag, _ in Tags(text).seen}
        assert "onerror" in text


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'about' is undefined"):
        render("census", "mine", {}, plots=False)


def test_a_plot_keeps_its_own_layout_and_takes_the_rest_from_the_page() -> None:
    text = macro("figure", go.Figure(go.Scatter(y=[1, 2]), go.Layout(hovermode="x", template="plotly_dark")), "curve")
    found = re.search(r'data-figure="curve">(.*)</script>', text)
    assert found is not None
    spec = json.loads(found[1])
    assert spec["data"][0]["y"] == [1, 2]
    assert spec["layout"]["hovermode"] == "x"
    assert spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert "template" not in spec["layout"]


def test_a_plot_may_hold_any_text() -> None:
    """``</script>`` in a name would end the element that holds the plot."""
    text = macro("figure", go.Figure(go.Scatter(y=[1], name=NASTY)), "curve")
    found = re.search(r'data-figure="curve">(.*?)</script>', text)
    assert found is not None and json.loads(found[1])["data"][0]["name"] == NASTY
    assert plot_spec(go.Figure(go.Scatter(y=[1], name=NASTY)))["data"][0]["name"] == NASTY


def test_numeric_columns_are_marked() -> None:
    text = macro("table", Table("rows", ["name", "n"], [["a", "1"], ["b", "2"]], numeric=[1]))
    assert text.count('class="number"') == 3
    assert text.count("<tr>") == 3


def test_a_cell_may_be_a_link() -> None:
    text = macro("table", Table("rows", ["report"], [[Link(NASTY, 'a"b/report.html')], [NASTY]]))
    assert [attributes["href"] for tag, attributes in Tags(text).seen if tag == "a"] == ['a"b/report.html']
    assert "img" not in {tag for tag, _ in Tags(text).seen}
