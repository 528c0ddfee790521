"""The report of a run: one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from metric_module.report.contents import Run
from metric_module.report.page import page
from metric_module.report.samples.album import album
from metric_module.report.samples.selection import choose
from metric_module.report.sections import (
    confusion_part,
    curves_part,
    figures_part,
    gallery_part,
    map_part,
    mined_part,
    pairs_part,
    roc_part,
    separation_part,
    setup_part,
)
from metric_module.storage.atomic import write_whole

_HERE = Path(__file__).parent


def write_report(path: Path, run: Run) -> None:
    """Write the report of a run.

    Args:
        path: The file.
        run: What it is about.

    Raises:
        UserError: If the data module shows samples in a way that no page can.
    """
    write_whole(path, page(run.title, body(run)))


def body(run: Run) -> str:
    """Everything between the title and the end of the page."""
    if run.pairs:
        return _page_of({"Figures": pairs_part(run), "Training": curves_part(run), "Set-up": setup_part(run)}, run, "")
    chosen = choose(run)
    ids, labels = run.items.ids.tolist(), run.items.labels.tolist()
    looks = album(chosen.ids(run), dict(zip(ids, labels, strict=True)), run.show, run.name)
    parts = {
        "Figures": figures_part(run),
        "Training": curves_part(run),
        "Distances": separation_part(run),
        "Queries": gallery_part(run, chosen, looks),
        "Confused classes": confusion_part(chosen, looks),
        "Mined triplets": mined_part(run, looks),
        "Map": map_part(run, chosen),
        "Same or different": roc_part(run),
        "Set-up": setup_part(run),
    }
    return _page_of(parts, run, looks.data())


def _page_of(parts: Mapping[str, str], run: Run, data: str) -> str:
    """The parts by title, with links to them."""
    links = "\n".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in parts)
    sections = "\n".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>\n{html}</section>' for title, html in parts.items()
    )
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    return (
        f"<style>\n{style}</style>\n<p>{escape(about(run))}</p>\n<nav>{links}</nav>\n{sections}\n{data}\n"
        f"<script>\n{script}</script>"
    )


def about(run: Run) -> str:
    """What was read, in a sentence or two."""
    steps = "" if run.steps is None else f" after {run.steps:,} steps of training"
    if run.pairs:
        return f"Read on {run.stage}{steps}: pairs of queries and references."
    classes = len(set(run.items.labels.tolist()))
    trained = {
        None: "Whether they were trained on, the data module does not say.",
        0: "None of these classes was trained on.",
    }.get(run.trained_on, f"{run.trained_on} of these classes were trained on.")
    return f"Read on {run.stage}{steps}: {len(run.items.ids):,} samples of {classes:,} classes. {trained}"


def _anchor(title: str) -> str:
    return f"part-{title.lower().replace(' ', '-')}"
