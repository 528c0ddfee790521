"""Queries with their nearest neighbours, and pairs of classes that are taken for each other.

Shapes: N = samples, Q = queries, K = neighbours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import torch

from metric_module.report.samples.album import Album
from metric_module.report.samples.neighbours import Items, Neighbours

SHOWN_PAIRS = 20


class Query(NamedTuple):
    """A query of the gallery.

    Attributes:
        id: Which sample.
        first: Rank of its nearest positive.
        figure: Its MAP@R.
        near: Id, distance and whether it is of the query's class, of each neighbour.
    """

    id: int
    first: int
    figure: float
    near: list[tuple[int, float, bool]]


class Confusion(NamedTuple):
    """A pair of classes: how often one was the nearest of the other, of how many queries, and two samples."""

    wrong: int
    queries: int
    one: int
    other: int


def queries_of(
    items: Items, rows: Sequence[int], first: Sequence[int], figure: Sequence[float], near: Neighbours
) -> list[Query]:
    """Put together what the gallery shows.

    Args:
        items: Everything that was read.
        rows: Rows of the queries, Q.
        first: Rank of the nearest positive of each.
        figure: MAP@R of each.
        near: Their neighbours ``(Q, K)``.
    """
    found = []
    for place, row in enumerate(rows):
        others, far = near.rows[place], near.distances[place]
        right = items.labels[others] == items.labels[row]  # (K,)
        order = sorted(range(len(others)), key=lambda k: (float(far[k]), bool(right[k])))  # a tie is a miss
        shown = [(int(items.ids[others[k]]), float(far[k]), bool(right[k])) for k in order if torch.isfinite(far[k])]
        found.append(Query(int(items.ids[row]), int(first[place]), float(figure[place]), shown))
    return found


def gallery(queries: Sequence[Query], album: Album) -> str:
    """Cards in the order that is given, worst first, with filters over them."""
    cards = "\n".join(_card(query, album) for query in queries)
    return f"""<div class="filters" role="group" aria-label="Filter the queries">
<button type="button" data-show="all" aria-pressed="true">All</button>
<button type="button" data-show="wrong" aria-pressed="false">Wrong at rank 1</button>
<button type="button" data-show="right" aria-pressed="false">Right at rank 1</button>
<label>Class <input type="search" id="class-search" placeholder="part of a name"></label>
<label>Order <select id="order">
<option value="worst">worst first</option><option value="best">best first</option>
</select></label></div>
<p><output id="shown-count" aria-live="polite"></output></p>
<ul class="queries" id="queries">
{cards}
</ul>
<p><button type="button" class="more" id="more" hidden>Show more</button></p>"""


def _card(query: Query, album: Album) -> str:
    name = escape(album.name(query.id))
    right = "right" if query.first == 1 else "wrong"
    said = "right at rank 1" if query.first == 1 else f"first right at rank {query.first:,}"
    near = "".join(_neighbour(album, *one) for one in query.near)
    return (
        f'<li class="query card" data-right="{right}" data-name="{name.lower()}">'
        f'<div class="asked">{album.tag(query.id)}<div><strong>{name}</strong><br>'
        f'<span class="muted">{said}; MAP@R {query.figure:.2f}</span></div></div>'
        f'<ol class="near">{near}</ol></li>'
    )


def _neighbour(album: Album, id: int, distance: float, right: bool) -> str:
    kind, mark, word = ("yes", "✓", "right") if right else ("no", "✗", "wrong")
    return (
        f'<li class="{kind}">{album.tag(id)}<span><span aria-hidden="true">{mark}</span>'
        f'<span class="hidden">{word}, </span> {distance:.2f}</span></li>'
    )


def confusions(items: Items, rows: Sequence[int], near: Neighbours, sizes: Counter[int]) -> list[Confusion]:
    """Pairs of classes, the most confused first.

    Args:
        items: Everything that was read.
        rows: Rows of the queries whose nearest item is of another class.
        near: Their neighbours, the nearest in the first column.
        sizes: How many queries each class has.
    """
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for place, row in enumerate(rows):
        other = int(near.rows[place, 0])
        one, two = int(items.labels[row]), int(items.labels[other])
        ids = int(items.ids[row]), int(items.ids[other])
        found[min(one, two), max(one, two)].append(ids if one < two else ids[::-1])
    ranked = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [Confusion(len(ids), sizes[one] + sizes[two], *ids[0]) for (one, two), ids in ranked if one != two]


def confusion_list(pairs: Sequence[Confusion], album: Album) -> str:
    """The pairs, with a sample of each class."""
    lines = "\n".join(
        f'<li class="pair card"><div class="asked">{album.tag(pair.one)}{album.tag(pair.other)}</div>'
        f"<div><strong>{escape(album.name(pair.one))}</strong> and "
        f"<strong>{escape(album.name(pair.other))}</strong><br>"
        f'<span class="muted">{pair.wrong} of {pair.queries} queries</span></div></li>'
        for pair in pairs
    )
    return f'<ul class="pairs">\n{lines}\n</ul>'
