"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metric_module.distances import Distance
from metric_module.evaluation.retrieval import PerQuery
from metric_module.evaluation.separation import Separation
from metric_module.report.samples.album import Name, Show
from metric_module.report.samples.neighbours import Items


class Run(NamedTuple):
    """A finished run. All tensors are on the CPU.

    Attributes:
        title: Of the page.
        stage: Which set ``items`` is, ``"val"`` or ``"test"``.
        figures: What was measured, by stage and name.
        items: The embeddings of that set.
        queries: Figures of each of its queries.
        margin: The criterion's.
        distance: The criterion's; None is Euclidean.
        trained_on: How many of its classes were trained on; None if nobody knows.
        show: The data module's, if it has one.
        name: What names the class of each sample, if the data module does.
        metrics: The run's ``metrics.csv``, if there is one.
        steps: How many steps training took; None if there was none.
        before: Separation of some validation samples before training, if it was kept.
        after: Separation of the same samples with the weights that were measured.
        samples: How many samples those are.
        mined: What :class:`metric_module.callbacks.MinedTriplets` kept.
        config: The composed configuration, as yaml.
        versions: By package.
        pairs: Whether the data has pairs in place of classes; ``items`` and ``queries`` are then empty.
    """

    title: str
    stage: str
    figures: Mapping[str, Mapping[str, float]]
    items: Items
    queries: PerQuery
    margin: float
    distance: Distance | None = None
    trained_on: int | None = None
    show: Show | None = None
    name: Name | None = None
    metrics: Path | None = None
    steps: int | None = None
    before: Separation | None = None
    after: Separation | None = None
    samples: int = 0
    mined: Mapping[str, Mapping[str, Any]] = {}
    config: str = ""
    versions: Mapping[str, str] = {}
    pairs: bool = False
