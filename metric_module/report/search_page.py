"""``search.html``: queries with their nearest items."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from metric_module.preprocessing.reading import image_suffixes, read_square
from metric_module.report.page import render
from metric_module.report.samples.album import MOST_TEXT, SIDE, data_uri

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
    # A name of a gallery file may be a device or a program for PostScript: only files named as images are opened.
    if Path(name).suffix.lower() not in image_suffixes():
        return None
    try:
        return data_uri(read_square(name, SIDE)) if Path(name).is_file() else None
    except Exception:  # Pillow raises many kinds
        return None
