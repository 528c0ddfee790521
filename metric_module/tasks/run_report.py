"""The figures of a run, and its report once they are safe."""

from __future__ import annotations

import logging
import platform
import sys
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, OmegaConf

from metric_module.callbacks import BeforeTraining, MinedTriplets
from metric_module.callbacks.before_training import measure_separation
from metric_module.config.messages import one_line
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distances import Distance
from metric_module.evaluation.metrics.base import Gathered
from metric_module.evaluation.retrieval import PerQuery, retrieval_per_query
from metric_module.evaluation.separation import Separation
from metric_module.tasks.build import Parts
from metric_module.tasks.figures import Figures, measure, report

if TYPE_CHECKING:
    from metric_module.report.contents import Run
    from metric_module.report.samples.neighbours import Items

PACKAGES = ("lightning-triplets", "torch", "lightning", "torchmetrics", "torchvision", "timm", "hydra-core", "plotly")


def read_figures(cfg: DictConfig, parts: Parts) -> dict[str, float]:
    """Read val and, unless ``cfg.test`` is false, test with the module as it is; write the figures, then the report.

    Args:
        cfg: The composed configuration.
        parts: Module, data and trainer.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``.
    """
    figures = measure(parts, ["val"] if cfg.test is False else ["val", "test"])
    found = report(parts, figures, Path(cfg.output_dir))
    report_run(cfg, parts, figures)
    return found


def report_run(cfg: DictConfig, parts: Parts, figures: Figures) -> None:
    """Write ``report.html`` on the first process, if ``cfg.report``; a report that fails is told, and nothing else.

    Args:
        cfg: The composed configuration.
        parts: What was measured, straight after :func:`metric_module.tasks.figures.measure`.
        figures: What that gave.
    """
    if not cfg.report or not figures or not parts.trainer.is_global_zero:
        return
    path = Path(cfg.output_dir) / "report.html"
    try:
        from metric_module.report.run_page import write_report

        write_report(path, _run(cfg, parts, figures))
    except Exception as error:
        if cfg.debug:
            raise
        logging.getLogger(__name__).info("the report failed", exc_info=True)
        said = f"warning: {path} was not written: {type(error).__name__}: {one_line(error)}"
        print(f"{said}; the figures are safe in metrics.json, debug=true shows the stack trace", file=sys.stderr)


def _run(cfg: DictConfig, parts: Parts, figures: Figures) -> Run:
    """Everything the report needs, on the CPU."""
    from metric_module.report.contents import Run

    module, datamodule, trainer = parts
    criterion, folder, stage = module.criterion, Path(cfg.output_dir), [*figures][-1]
    distance = deepcopy(criterion.distance).cpu()
    pairs = module.metric.sought is not None
    items, found = _nothing() if pairs else read_items(module.metric.gathered(), distance)
    watched = {type(callback): callback for callback in trainer.callbacks}  # type: ignore[attr-defined]
    mined = watched.get(MinedTriplets)
    before, after, samples = _separations(watched.get(BeforeTraining), items, criterion.margin, distance)
    facts = DataModuleFacts(datamodule)
    trained_on = facts.classes_trained_on
    return Run(
        title=f"{folder.parent.name} {folder.name}",
        stage=stage,
        figures=figures,
        items=items,
        queries=found,
        margin=float(criterion.margin),
        distance=distance,
        trained_on=None if trained_on is None else trained_on(stage),
        show=facts.show,
        name=facts.class_names_of,
        metrics=path if (path := folder / "metrics.csv").is_file() else None,
        steps=trainer.global_step or None,
        before=before,
        after=after,
        samples=samples,
        mined={} if mined is None else mined.mined,
        config=OmegaConf.to_yaml(cfg),
        versions=_versions(),
        pairs=pairs,
    )


def _nothing() -> tuple[Items, PerQuery]:
    """In place of samples by class and of their figures."""
    from metric_module.report.samples.neighbours import Items

    none, numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    return Items(numbers.view(0, 1), none, none, none), PerQuery(none, none, numbers, numbers, numbers)


def read_items(gathered: Gathered, distance: Distance) -> tuple[Items, PerQuery]:
    """What was read last, and the figures of each query, by its row.

    Args:
        gathered: From the module's metric.
        distance: The criterion's, on the CPU.
    """
    from metric_module.report.samples.neighbours import Items

    embeddings, labels, ids = (part.detach().cpu() for part in gathered[:3])  # (N, D), (N,), (N,)
    if gathered.queries is None:
        items = Items(embeddings, labels, ids, torch.arange(len(labels)))
        return items, retrieval_per_query(embeddings, labels, ids, distance=distance)
    asked = gathered.queries.cpu()  # (N,)
    rows, gallery = asked.nonzero()[:, 0], (~asked).nonzero()[:, 0]  # (Q,), (G,)
    found = retrieval_per_query(
        embeddings[rows],
        labels[rows],
        ids[rows],
        gallery=embeddings[gallery],
        gallery_labels=labels[gallery],
        gallery_ids=ids[gallery],
        distance=distance,
    )
    return Items(embeddings, labels, ids, gallery), found._replace(rows=rows[found.rows])


def _separations(
    kept: BeforeTraining | None, items: Items, margin: float, distance: Distance
) -> tuple[Separation | None, Separation | None, int]:
    """Before and after training of the same samples; without that, of what was read, whole classes of it."""
    from metric_module.report.samples.neighbours import whole_classes

    if not len(items.ids):
        return None, None, 0
    if kept is not None and kept.ids is not None and kept.after is not None:
        return kept.before, kept.after, len(kept.ids)
    rows = whole_classes(items.labels, 2000)
    measured = measure_separation(items.embeddings[rows], items.labels[rows], margin, distance)
    return None, measured, len(rows)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
