"""``report.html`` of a run: figures, training curves, distances, queries, mined triplets and a map on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metric_module.report.contents import Run
from metric_module.report.intervals import RESAMPLES
from metric_module.report.page import Table, render
from metric_module.report.plots.curves import read_curves, training_plots
from metric_module.report.samples.album import album
from metric_module.report.samples.mined import phases
from metric_module.report.samples.selection import WORST_QUERIES, choose
from metric_module.report.sections import figures_of, map_of, roc_of, separation_of
from metric_module.storage.atomic import write_whole


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
        "figures": figures_of(run),
        "resamples": RESAMPLES,
        "curves": training_plots(read_curves(run.metrics, run.steps)) if run.metrics and run.steps else {},
        "versions": Table("versions", ["package", "version"], [*run.versions.items()]),
    }
    if not run.pairs:
        chosen = choose(run)
        labels = dict(zip(run.items.ids.tolist(), run.items.labels.tolist(), strict=True))
        values |= {
            "chosen": chosen,
            "worst": WORST_QUERIES,
            "album": album(chosen.ids(run), labels, run.show, run.name),
            "separation": separation_of(run),
            "phases": phases(run.mined),
            "map": map_of(run, chosen),
            "roc": roc_of(run),
        }
    return render("run", run.title, values)


def about(run: Run) -> str:
    """Say which set was evaluated, after how much training, and whether its classes were trained on."""
    steps = "" if run.steps is None else f" after {run.steps:,} steps of training"
    if run.pairs:
        return f"Read on {run.stage}{steps}: pairs of queries and references."
    classes = len(set(run.items.labels.tolist()))
    trained = {
        None: "The data module does not say whether they were trained on.",
        0: "None of these classes was trained on.",
    }.get(run.trained_on, f"{run.trained_on} of these classes were trained on.")
    return f"Read on {run.stage}{steps}: {len(run.items.ids):,} samples of {classes:,} classes. {trained}"
