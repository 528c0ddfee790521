"""``report.html`` of a run: figures, training curves, distances, queries, mined triplets and a map on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metric_module.evaluation.verification.metrics import roc_curve
from metric_module.report.closed_set import explained
from metric_module.report.contents import Run
from metric_module.report.intervals import RESAMPLES, bootstrap, figures_table
from metric_module.report.page import Table, render
from metric_module.report.plots.curves import read_curves, training_plots
from metric_module.report.plots.embedding_map import map_plot, pca, umap
from metric_module.report.plots.roc import roc_plot, roc_table
from metric_module.report.plots.separation import margins_plot, separation_plot, shares_at
from metric_module.report.samples.album import album
from metric_module.report.samples.mined import phases
from metric_module.report.samples.neighbours import whole_classes
from metric_module.report.samples.selection import WORST_QUERIES, Chosen, choose
from metric_module.storage.atomic import write_whole

PAIRWISE = 4000
"""Most samples of the ROC curve, which compares every pair of them."""


def write_report(path: Path, run: Run) -> None:
    """Write the report of a run.

    Args:
        path: The file.
        run: The run.

    Raises:
        UserError: If the data module's ``show`` returns something else than an image or a text for each sample.
    """
    write_whole(path, run_page(run))


def run_page(run: Run) -> str:
    """Render the report of a run; the arguments and errors are those of :func:`write_report`."""
    values: dict[str, Any] = {
        "run": run,
        "about": about(run),
        "figures": _figures(run),
        "start": start(run),
        "resamples": RESAMPLES,
        "curves": training_plots(read_curves(run.metrics, run.steps), run.monitor, run.figures)
        if run.metrics and run.steps
        else {},
        "versions": Table("versions", ["package", "version"], [*run.versions.items()]),
    }
    if not run.pairs:
        chosen = choose(run)
        labels = dict(zip(run.items.ids.tolist(), run.items.labels.tolist(), strict=True))
        values |= {
            "chosen": chosen,
            "worst": WORST_QUERIES,
            "album": album(chosen.ids(run), labels, run.show, run.name, run.names),
            "separation": _separation(run),
            "phases": phases(run.mined),
            "map": _map(run, chosen),
            "roc": _roc(run),
        }
    return render("run", run.title, values)


def about(run: Run) -> str:
    """Say which set was evaluated, after how much training, and whether its classes were trained on."""
    steps = "" if run.steps is None else f" after {run.steps:,} steps of training"
    closed = explained({run.stage: run.figures[run.stage]})
    closed = f" {closed[:1].upper()}{closed[1:]}." if closed else ""
    if run.pairs:
        return f"Read on {run.stage}{steps}: pairs of queries and references.{closed}"
    classes = len(set(run.items.labels.tolist()))
    trained = {
        None: "It is not known whether they were trained on.",
        0: "None of these classes was trained on.",
    }.get(run.trained_on, f"{run.trained_on} of these classes were trained on.")
    read = f"Read on {run.stage}{steps}: {len(run.items.ids):,} samples of {classes:,} classes."
    return f"{read}{closed}" if closed else f"{read} {trained}"


def start(run: Run) -> str:
    """Say what the figures from before training and ``best_step`` are, and which are missing; empty without any."""
    sources = {
        "before": "before is the encoder at step 0",
        "raw": "raw is the inputs themselves (pixels, vectors, or character TF-IDF of texts) under Euclidean distance",
    }
    found = [text for name, text in sources.items() if name in run.figures]
    told = [f"On the same samples as val, before the first step: {', '.join(found)}."] if found else []
    if run.raw_absent is not None:
        told.append(f"The inputs themselves were not measured: {run.raw_absent}.")
    if "best_step" in run.figures.get("val", {}):
        told.append("best_step is the step of the best checkpoint; 0 is the encoder before training.")
    return " ".join(told)


def _figures(run: Run) -> Table:
    """Return the figures of all stages, some with the interval of a bootstrap over classes."""
    if run.pairs:
        return figures_table(run.figures, run.stage, {})
    found = run.queries
    values = {"recall_at_1": (found.first == 1).double(), "map_at_r": found.map_at_r, "r_precision": found.r_precision}
    values["mrr"] = found.first.double().reciprocal()
    ends = bootstrap(torch.stack([*values.values()], dim=1), run.items.labels[found.rows])  # (2, F)
    intervals = {name: (low, high) for name, low, high in zip(values, *ends.tolist(), strict=True)}
    return figures_table(run.figures, run.stage, intervals)


def _separation(run: Run) -> dict[str, Any] | None:
    """Return the distances of pairs before and after training; None without pairs of both kinds."""
    if run.after is None:
        return None
    panels = [("", run.after)] if run.before is None else [("before training", run.before), ("after", run.after)]
    return {
        "plot": separation_plot(panels, run.margin),
        "shares": "; ".join(f"{title or 'now'}: {shares_at(part, run.margin)}" for title, part in panels),
        "margins": margins_plot(run.after, run.margin),
    }


def _map(run: Run, chosen: Chosen) -> dict[str, Any]:
    """Return the chosen embeddings in two dimensions, by PCA and, where umap-learn is installed, by UMAP."""
    plane, share = pca(run.items.embeddings, chosen.points)
    folded = umap(run.items.embeddings[chosen.points])
    planes = {"PCA": plane} if folded is None else {"PCA": plane, "UMAP": folded}
    plot = map_plot(planes, run.items.ids[chosen.points].tolist(), chosen.right)
    return {"plot": plot, "share": share, "umap": folded is not None}


def _roc(run: Run) -> dict[str, Any] | None:
    """Return the ROC curve over all pairs of at most 4,000 samples; None without pairs of both kinds."""
    items = run.items
    rows = whole_classes(items.labels, PAIRWISE)
    sizes = torch.unique(items.labels[rows], return_counts=True)[1]
    if len(sizes) < 2 or int(sizes.max()) < 2:
        return None
    best = run.figures.get("val", {}).get("best_threshold") if run.stage != "val" else None
    curve = roc_curve(items.embeddings[rows], items.labels[rows], items.ids[rows], distance=run.distance)
    return {"plot": roc_plot(curve, best), "table": roc_table(curve, best), "samples": len(rows)}
