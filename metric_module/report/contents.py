"""The content of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metric_module.distances import Distance
from metric_module.evaluation.retrieval import PerQuery
from metric_module.evaluation.separation import Separation
from metric_module.report.samples.album import Name, Show
from metric_module.report.samples.neighbours import Items

_NONE, _NO_FIGURES = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
NO_ITEMS = Items(torch.zeros(0, 1), _NONE, _NONE, _NONE)
NO_QUERIES = PerQuery(_NONE, _NONE, _NO_FIGURES, _NO_FIGURES, _NO_FIGURES)


class Run(NamedTuple):
    """A finished run. All tensors are on the CPU.

    Attributes:
        title: Title of the page.
        stage: The set that was evaluated last and that ``items`` describes, ``"val"`` or ``"test"``.
        figures: The figures by stage and name; ``"before"`` and ``"raw"`` are those of val from before training.
        margin: The criterion's margin, in units of the distance.
        items: The embeddings of that set.
        queries: The figures of each of its queries, by row of ``items``.
        distance: The criterion's distance; None is Euclidean.
        ranked_to: Ranks in ``queries`` beyond this one are lower bounds; None if every rank is exact.
        trained_on: Number of its classes that were trained on; None if the data module does not say.
        show: The data module's method ``show``; None if it has none.
        name: The data module's method that names the class of each sample; None if it has none.
        names: The data module's method that names each sample, as by its file; None if it has none.
        metrics: Path of the run's ``metrics.csv``; None if there is none.
        monitor: The figure that selected the best checkpoint; None if there is none.
        steps: Number of training steps; None if the run trained nothing.
        before: Separation of some validation samples before training; None if it was not recorded.
        after: Separation of the same samples with the evaluated weights.
        samples: Number of these samples.
        mined: The triplets that :class:`metric_module.callbacks.MinedTriplets` recorded, by phase.
        config: The composed configuration as yaml.
        versions: Versions by package.
        pairs: Whether the data has pairs instead of classes; ``items`` and ``queries`` are then empty.
        raw_absent: Why the raw inputs were not measured; None if they were.
        no_help: The line that says that training did not help; None if it did.
    """

    title: str
    stage: str
    figures: Mapping[str, Mapping[str, float]]
    margin: float
    items: Items = NO_ITEMS
    queries: PerQuery = NO_QUERIES
    distance: Distance | None = None
    ranked_to: int | None = None
    trained_on: int | None = None
    show: Show | None = None
    name: Name | None = None
    names: Name | None = None
    metrics: Path | None = None
    monitor: str | None = None
    steps: int | None = None
    before: Separation | None = None
    after: Separation | None = None
    samples: int = 0
    mined: Mapping[str, Mapping[str, Any]] = {}
    config: str = ""
    versions: Mapping[str, str] = {}
    pairs: bool = False
    raw_absent: str | None = None
    no_help: str | None = None
