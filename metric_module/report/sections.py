"""Sections of a run's report: the tables and plots that the template shows."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
import torch

from metric_module.evaluation.verification.metrics import roc_curve
from metric_module.report.contents import Run
from metric_module.report.intervals import bootstrap, figures_table
from metric_module.report.page import Table
from metric_module.report.plots.embedding_map import map_plot, pca, umap
from metric_module.report.plots.roc import roc_plot, roc_table
from metric_module.report.plots.separation import margins_plot, separation_plot, shares_at
from metric_module.report.samples.neighbours import whole_classes
from metric_module.report.samples.selection import Chosen

PAIRWISE = 4000
"""Most samples of the ROC curve, which compares every pair of them."""


class Separations(NamedTuple):
    """The distances of pairs, and the shares of triplets at the run's margin and at others."""

    plot: go.Figure
    shares: str
    margins: go.Figure


class Map(NamedTuple):
    """The map, the share of the variance that its PCA contains, and whether it also has a UMAP."""

    plot: go.Figure
    share: float
    umap: bool


class Roc(NamedTuple):
    """The ROC curve, its table of thresholds, and the number of samples that were paired."""

    plot: go.Figure
    table: Table
    samples: int


def figures_of(run: Run) -> Table:
    """Return the figures of all stages, some with the interval of a bootstrap over classes."""
    if run.pairs:
        return figures_table(run.figures, run.stage, {})
    found = run.queries
    values = {"recall_at_1": (found.first == 1).double(), "map_at_r": found.map_at_r, "r_precision": found.r_precision}
    values["mrr"] = found.first.double().reciprocal()
    ends = bootstrap(torch.stack([*values.values()], dim=1), run.items.labels[found.rows])  # (2, F)
    intervals = {name: (low, high) for name, low, high in zip(values, *ends.tolist(), strict=True)}
    return figures_table(run.figures, run.stage, intervals)


def separation_of(run: Run) -> Separations | None:
    """Return the distances of pairs before and after training; None without pairs of both kinds."""
    if run.after is None:
        return None
    panels = [("", run.after)] if run.before is None else [("before training", run.before), ("after", run.after)]
    shares = "; ".join(f"{title or 'now'}: {shares_at(part, run.margin)}" for title, part in panels)
    return Separations(separation_plot(panels, run.margin), shares, margins_plot(run.after, run.margin))


def map_of(run: Run, chosen: Chosen) -> Map:
    """Return the chosen embeddings in two dimensions, by PCA and, where umap-learn is installed, by UMAP."""
    plane, share = pca(run.items.embeddings, chosen.points)
    folded = umap(run.items.embeddings[chosen.points])
    planes = {"PCA": plane} if folded is None else {"PCA": plane, "UMAP": folded}
    return Map(map_plot(planes, run.items.ids[chosen.points].tolist(), chosen.right), share, folded is not None)


def roc_of(run: Run) -> Roc | None:
    """Return the ROC curve over all pairs of at most 4,000 samples; None without pairs of both kinds."""
    items = run.items
    rows = whole_classes(items.labels, PAIRWISE)
    sizes = torch.unique(items.labels[rows], return_counts=True)[1]
    if len(sizes) < 2 or int(sizes.max()) < 2:
        return None
    best = run.figures.get("val", {}).get("best_threshold") if run.stage != "val" else None
    curve = roc_curve(items.embeddings[rows], items.labels[rows], items.ids[rows], distance=run.distance)
    return Roc(roc_plot(curve, best), roc_table(curve, best), len(rows))
