"""``search.html``: queries with their nearest items."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from metric_module.report.page import render
from metric_module.report.samples.album import MOST_TEXT, data_uri

MOST = 200
"""Queries on the page; more would make it slow to open."""


class Hit(NamedTuple):
    """An item that was found: its name, its label or None, and its distance from the query."""

    name: str
    label: str | None
    distance: float


class Searched(NamedTuple):
    """A query by name, and what was found for it, nearest first."""

    name: str
    hits: list[Hit]


def search_page(found: list[Searched], items: int, threshold: float | None) -> str:
    """Render the page of a search.

    Args:
        found: The queries; a name that is the path of a picture is shown as that picture.
        items: Number of gallery items.
        threshold: Distance up to which an item counts as the same as the query, or None.

    Returns:
        A whole HTML document.
    """
    shown = found[:MOST]
    names = {name for query in shown for name in (query.name, *(hit.name for hit in query.hits))}
    values = {"queries": shown, "pictures": {name: _picture(name) for name in names}, "most_text": MOST_TEXT}
    return render(
        "search", "Search", {**values, "count": len(found), "items": items, "threshold": threshold}, plots=False
    )


def _picture(name: str) -> str | None:
    """Return a picture as a data URI; None for anything else."""
    try:
        with Image.open(name) as opened:
            return data_uri(opened)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
