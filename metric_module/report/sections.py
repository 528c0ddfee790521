"""The parts of a report, each from a run to HTML; a part without data says why."""

from __future__ import annotations

from html import escape

import torch

from metric_module.evaluation.verification.metrics import roc_curve
from metric_module.report.contents import Run
from metric_module.report.intervals import RESAMPLES, bootstrap, figures_table
from metric_module.report.page import figure, table
from metric_module.report.plots.curves import census_plot, loss_plot, read_curves, validation_plot
from metric_module.report.plots.embedding_map import map_plot, pca, umap
from metric_module.report.plots.roc import roc_plot, roc_table
from metric_module.report.plots.separation import margins_plot, separation_plot, shares_at
from metric_module.report.samples.album import Album
from metric_module.report.samples.gallery import confusion_list, gallery
from metric_module.report.samples.mined import mined_list
from metric_module.report.samples.neighbours import WORST, whole_classes
from metric_module.report.samples.selection import QUERIES, Chosen

PAIRWISE = 4000
"""Samples of which every pair is looked at."""


def figures_part(run: Run) -> str:
    """Figures with intervals."""
    found = run.queries
    values = {"recall_at_1": (found.first == 1).double(), "map_at_r": found.map_at_r, "r_precision": found.r_precision}
    values["mrr"] = found.first.double().reciprocal()
    ends = bootstrap(torch.stack([*values.values()], dim=1), run.items.labels[found.rows])  # (2, F)
    intervals = {name: (low, high) for name, low, high in zip(values, *ends.tolist(), strict=True)}
    return paragraph(
        f"The interval is the middle 95 % over {RESAMPLES:,} resamples of the classes of {run.stage}: how far a figure "
        "would move if other classes like these were measured. It does not hold what another seed of training changes."
    ) + figures_table(run.figures, run.stage, intervals)


def pairs_part(run: Run) -> str:
    """Figures of pairs, and what a report cannot show of them."""
    return figures_table(run.figures, run.stage, {}) + missing(
        "This data has pairs in place of classes: intervals, neighbours, mined triplets, distances and the map, which "
        "go by class, are left out."
    )


def curves_part(run: Run) -> str:
    """Loss, census and validation figures over steps."""
    if run.steps is None:
        return missing("This run trained nothing.")
    if run.metrics is None:
        return missing("There is no metrics.csv in this folder; logger=csv writes it.")
    curves = read_curves(run.metrics, run.steps)
    plots = {"loss": loss_plot(curves), "census": census_plot(curves), "validation": validation_plot(curves)}
    told = {
        "loss": "The loss of training batches, and of the whole validation set as one batch.",
        "census": "Of all valid triplets of a batch: hard (the negative is nearer than the positive), semi-hard "
        "(within the margin beyond it), easy (farther: no loss).",
        "validation": "The figures of the validations.",
    }
    parts = [paragraph(told[name]) + figure(plot, name) for name, plot in plots.items() if plot is not None]
    return "".join(parts) or missing("Nothing was logged; trainer.log_every_n_steps=1 logs every step.")


def separation_part(run: Run) -> str:
    """Distances of pairs before and after training, and the margin."""
    if run.before is not None and run.after is not None:
        parts = [("before training", run.before), ("after", run.after)]
        said = f"The same {run.samples:,} samples of val before training and with the weights measured here."
    elif run.after is not None:
        parts, said = (
            [("", run.after)],
            (
                f"{run.samples:,} samples of {run.stage}. What they looked like before training was not kept: this run "
                "evaluates a checkpoint, or ran without callbacks.before_training."
            ),
        )
    else:
        return missing("There are no pairs of both kinds to compare.")
    shares = "; ".join(f"{title or 'now'}: {shares_at(part, run.margin)}" for title, part in parts)
    return (
        paragraph(
            f"{said} Dashed: the median positive pair, and a margin beyond it. For that pair a negative left of the "
            "band is hard, within it semi-hard, right of it easy: the loss pushes the negatives (orange) out of it."
        )
        + figure(separation_plot(parts, run.margin), "separation")
        + paragraph(f"Of all triplets of these samples, {shares}.")
        + paragraph("How that depends on the margin, now; dashed: this run's.")
        + figure(margins_plot(parts[-1][1], run.margin), "margins")
    )


def gallery_part(run: Run, chosen: Chosen, album: Album) -> str:
    """Queries with their neighbours."""
    shown, every = len(chosen.queries), len(run.queries.rows)
    left = (
        ""
        if shown == every
        else (
            f" {shown:,} of {every:,} queries are here: the {int(QUERIES * WORST)} worst by MAP@R, and a "
            "spread over the rest."
        )
    )
    return paragraph(
        f"Each query with its nearest neighbours in {run.stage} and their distances; ✓ is of the query's class.{left}"
    ) + gallery(chosen.queries, album)


def mined_part(run: Run, album: Album) -> str:
    """Triplets of three steps."""
    if not run.mined:
        why = (
            "This run trained nothing."
            if run.steps is None
            else ("None were kept: the batches have no ids, or callbacks.mined_triplets is missing.")
        )
        return missing(why)
    return paragraph(
        "Some of what the miner chose, with distances from the anchor at that step, and samples as they are in the "
        "data set, before augmentation. With several processes, anchors are those of the first."
    ) + mined_list(run.mined, album)


def map_part(run: Run, chosen: Chosen) -> str:
    """Embeddings on a plane."""
    plane, share = pca(run.items.embeddings, chosen.points)
    planes = {"PCA": plane}
    folded = umap(run.items.embeddings[chosen.points])
    if folded is not None:
        planes["UMAP"] = folded
    count, every = len(chosen.points), len(run.items.ids)
    left = "" if count == every else f" {count:,} of {every:,} samples are drawn."
    hint = "" if folded is not None else " pip install umap-learn adds a UMAP."
    return (
        paragraph(
            f"PCA: the two directions of most spread hold {100 * share:.0f} % of the variance, so neighbours here need "
            f"not be neighbours in truth. Point at a sample to see it.{left}{hint}"
        )
        + figure(map_plot(planes, run.items.ids[chosen.points].tolist(), chosen.right), "map")
        + '<div id="tip" hidden></div>'
    )


def roc_part(run: Run) -> str:
    """Verification by a threshold."""
    labels = run.items.labels
    rows = torch.arange(len(labels)) if len(labels) <= PAIRWISE else whole_classes(labels, PAIRWISE)
    sizes = torch.unique(labels[rows], return_counts=True)[1]
    if len(sizes) < 2 or int(sizes.max()) < 2:
        return missing("There are no pairs of both kinds to compare.")
    chosen = run.figures.get("val", {}).get("best_threshold") if run.stage != "val" else None
    curve = roc_curve(run.items.embeddings[rows], labels[rows], run.items.ids[rows], distance=run.distance)
    left = "" if len(rows) == len(labels) else f" {len(rows):,} of {len(labels):,} samples, whole classes, are paired."
    return (
        paragraph(
            f"Two samples count as the same class if their distance is at most the threshold.{left} The curve runs "
            "over all thresholds; point at it to read one off."
        )
        + figure(roc_plot(curve, chosen), "roc")
        + roc_table(curve, chosen)
    )


def confusion_part(chosen: Chosen, album: Album) -> str:
    """Pairs of classes that are taken for each other."""
    if not chosen.pairs:
        return missing("No query has a nearest neighbour of another class.")
    left = (
        "" if len(chosen.pairs) == chosen.confused else f" The {len(chosen.pairs)} worst of {chosen.confused:,} pairs."
    )
    return paragraph(
        f"How many queries of either class have their nearest neighbour in the other.{left}"
    ) + confusion_list(chosen.pairs, album)


def setup_part(run: Run) -> str:
    """Configuration and versions."""
    rows = [[name, version] for name, version in run.versions.items()]
    return (
        table(["package", "version"], rows, "versions")
        + f"<details><summary>Configuration</summary><pre>{escape(run.config)}</pre></details>"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def missing(why: str) -> str:
    """What stands for a part without data."""
    return f'<p class="muted">{escape(why)}</p>\n'
