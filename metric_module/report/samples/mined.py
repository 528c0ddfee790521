"""Triplets that training mined, at its start, middle and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from metric_module.criterion.examples import CATEGORIES, categories
from metric_module.report.samples.album import Album

PHASES = {"start": "At the start", "middle": "In the middle", "end": "At the end"}


def mined_ids(mined: Mapping[str, Mapping[str, Any]]) -> set[int]:
    """Ids of every sample in what :class:`metric_module.callbacks.MinedTriplets` kept."""
    return {id for kept in mined.values() for id in kept["ids"].flatten().tolist()}


def mined_list(mined: Mapping[str, Mapping[str, Any]], album: Album) -> str:
    """A list of triplets for each phase.

    Args:
        mined: What :class:`metric_module.callbacks.MinedTriplets` kept.
        album: How samples look.
    """
    return "\n".join(_phase(title, mined.get(phase), album) for phase, title in PHASES.items())


def _phase(title: str, kept: Mapping[str, Any] | None, album: Album) -> str:
    if kept is None:
        return f'<h3>{title}</h3>\n<p class="muted">Training did not take this step, or started before it was kept.</p>'
    of = "" if kept["steps"] is None else f" of {kept['steps']:,}"
    about = f"step {kept['step'] + 1:,}{of}; {escape(kept['miner'])}, margin {kept['margin']:.3g}"
    if not len(kept["ids"]):
        return f'<h3>{title}</h3>\n<p class="muted">{about}: the miner found no triplet.</p>'
    d_ap, d_an = kept["distances"].unbind(dim=1)  # (T,), (T,)
    kinds = categories(d_ap, d_an, kept["margin"])
    number = Counter(kinds)
    shares = ", ".join(f"{number[kind]} {kind}" for kind in CATEGORIES if number[kind])
    rows = zip(kept["ids"].tolist(), d_ap.tolist(), d_an.tolist(), kinds, strict=True)
    cards = "\n".join(_card(album, *row) for row in rows)
    return f'<h3>{title}</h3>\n<p class="muted">{about}: {shares}</p>\n<ul class="triplets">\n{cards}\n</ul>'


def _card(album: Album, ids: list[int], d_ap: float, d_an: float, kind: str) -> str:
    parts = (("anchor", ""), ("positive", f"d = {d_ap:.2f}"), ("negative", f"d = {d_an:.2f}"))
    figures = "".join(
        f"<figure>{album.tag(id)}<figcaption>{role}<br>{escape(album.name(id))}<br>{far}</figcaption></figure>"
        for id, (role, far) in zip(ids, parts, strict=True)
    )
    return f'<li class="triplet card"><span class="kind {kind}">{kind}</span><div class="three">{figures}</div></li>'
