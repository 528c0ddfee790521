"""The figures of a run, and its report, which is written once the figures are safe."""

from __future__ import annotations

import logging
import platform
import sys
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from metric_module.callbacks import BeforeTraining, MinedTriplets
from metric_module.callbacks.before_training import measure_separation
from metric_module.config.messages import one_line
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distances import Distance
from metric_module.evaluation.metrics.base import EmbeddingMetric
from metric_module.evaluation.metrics.of_classes import MetricGroup
from metric_module.evaluation.metrics.retrieval import RetrievalMetric
from metric_module.evaluation.retrieval import PerQuery, retrieval_per_query
from metric_module.evaluation.separation import Separation
from metric_module.report.contents import Run
from metric_module.report.samples.neighbours import Items, whole_classes
from metric_module.tasks.build import Parts
from metric_module.tasks.figures import (
    STAGES,
    Figures,
    before_training,
    measure,
    no_help,
    report,
    with_classes,
    with_start,
)
from metric_module.tasks.run_files import write_config

PACKAGES = ("lightning-triplets", "torch", "lightning", "torchmetrics", "torchvision", "timm", "hydra-core", "plotly")


def read_figures(
    cfg: DictConfig, parts: Parts, split: str | None = None, record: bool = False, trained_on: str | None = None
) -> dict[str, float]:
    """Evaluate val and, unless ``cfg.test`` is false, test; write the figures, then the report.

    Args:
        cfg: The composed configuration.
        parts: Module, data and trainer; the module is evaluated with its current weights.
        split: A split to evaluate instead: ``train``, ``val``, ``test`` or ``all``.
        record: Whether to write ``config.yaml`` with the figures, for a task that has not done so when it started.
        trained_on: Fingerprint of the data that the weights were trained on; None if it is not known. It must be that
            of this data for the figures to say how many classes were trained on.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``.
    """
    stages = ("val",) if cfg.test is False else STAGES
    figures = measure(parts, stages if split is None else (split,))
    same_data = trained_on is not None and trained_on == getattr(parts.datamodule, "fingerprint", None)
    if same_data:
        figures = with_classes(figures, parts)
    found = report(parts, figures, Path(cfg.output_dir))
    if record and parts.trainer.is_global_zero:
        write_config(cfg)
    report_run(cfg, parts, figures, same_data=same_data)
    return found


def read_trained_figures(cfg: DictConfig, parts: Parts, best_step: int | None) -> dict[str, float]:
    """Do what :func:`read_figures` does after a training, beside the figures from before it.

    Args:
        cfg: The composed configuration.
        parts: Module, data and trainer; the module has its best weights.
        best_step: Optimizer steps of these weights; None if no checkpoint was the best.

    Returns:
        The figures, with ``before/map_at_r`` and ``raw/map_at_r`` where they were measured.
    """
    measured = measure(parts, ("val",) if cfg.test is False else STAGES)
    figures = with_start(with_classes(measured, parts), parts, best_step)
    recorded, line = before_training(parts), no_help(figures, cfg.monitor, parts, cfg.encoder)
    absent = None if recorded is None else recorded.raw_absent
    lines = [*([f"raw inputs are not measured: {absent}"] if absent else []), *([line] if line else [])]
    found = report(parts, figures, Path(cfg.output_dir), lines)
    report_run(cfg, parts, figures, absent, line)
    return found


def report_run(
    cfg: DictConfig,
    parts: Parts,
    figures: Figures,
    raw_absent: str | None = None,
    unhelpful: str | None = None,
    same_data: bool = True,
) -> None:
    """Write ``report.html`` on the first process, if ``cfg.report``; an error becomes a warning unless ``cfg.debug``.

    Args:
        cfg: The composed configuration.
        parts: Module, data and trainer, directly after :func:`metric_module.tasks.figures.measure`.
        figures: The figures that it returned.
        raw_absent: Why the raw inputs were not measured; None if they were.
        unhelpful: The line that says that training did not help; None if it did.
        same_data: Whether the weights are known to be trained on this data.
    """
    if not cfg.report or not figures or not parts.trainer.is_global_zero:
        return
    path = Path(cfg.output_dir) / "report.html"
    try:
        from metric_module.report.run_page import write_report  # plotly takes its time

        write_report(path, _run(cfg, parts, figures, same_data)._replace(raw_absent=raw_absent, no_help=unhelpful))
    except Exception as error:
        if cfg.debug:
            raise
        logging.getLogger(__name__).info("the report failed", exc_info=True)
        problem = f"warning: {path} was not written: {type(error).__name__}: {one_line(error)}"
        print(f"{problem}; the figures are safe in metrics.json, debug=true shows the stack trace", file=sys.stderr)


def _run(cfg: DictConfig, parts: Parts, figures: Figures, same_data: bool) -> Run:
    """Collect the content of the report on the CPU."""
    module, datamodule, trainer = parts
    criterion, folder, stage = module.criterion, Path(cfg.output_dir), [*figures][-1]
    distance = deepcopy(criterion.distance).cpu()
    callbacks = {type(callback): callback for callback in trainer.callbacks}  # type: ignore[attr-defined]
    mined, metrics, facts = callbacks.get(MinedTriplets), folder / "metrics.csv", DataModuleFacts(datamodule)
    count = facts.classes_trained_on if same_data and stage in STAGES else None
    run = Run(
        title=f"{folder.parent.name} {folder.name}",
        stage=stage,
        figures=figures,
        margin=float(criterion.margin),
        distance=distance,
        trained_on=None if count is None else count(stage),
        show=facts.show,
        name=facts.class_names_of,
        names=facts.names_of,
        metrics=metrics if metrics.is_file() else None,
        monitor=cfg.monitor,
        steps=trainer.global_step or None,
        mined={} if mined is None else mined.mined,
        config=OmegaConf.to_yaml(cfg),
        versions=_versions(),
        pairs=module.metric.sought is not None,
    )
    if run.pairs:
        return run
    items, queries, ranked_to = read_items(module.metric, distance)
    before, after, samples = _separations(callbacks.get(BeforeTraining), items, criterion.margin, distance)
    return run._replace(items=items, queries=queries, ranked_to=ranked_to, before=before, after=after, samples=samples)


def read_items(metric: EmbeddingMetric, distance: Distance) -> tuple[Items, PerQuery, int | None]:
    """Return the evaluated set on the CPU, and the figures of each query by row of the set.

    The figures are those of the retrieval metric. Without one (``evaluation=verification``), they are computed here.

    Args:
        metric: The module's metric, after ``compute``.
        distance: The criterion's distance, on the CPU.

    Returns:
        The set, the figures, and the rank beyond which ranks are lower bounds; None if every rank is exact.
    """
    gathered = metric.gathered()
    embeddings, labels, ids = (part.detach().cpu() for part in gathered[:3])  # (N, D), (N,), (N,)
    rows = gallery = torch.arange(len(labels))
    if gathered.queries is not None:
        asked = gathered.queries.cpu()  # (N,)
        rows, gallery = rows[asked], rows[~asked]  # (Q,), (G,)
    items = Items(embeddings, labels, ids, gallery)
    if metric.per_query is not None:
        metrics = metric.metrics if isinstance(metric, MetricGroup) else (metric,)
        limits = [
            max(one.recall_at, default=1) for one in metrics if isinstance(one, RetrievalMetric) and not one.all_ranks
        ]
        return items, metric.per_query, min(limits, default=None)
    found = retrieval_per_query(
        embeddings[rows],
        labels[rows],
        ids[rows],
        gallery=embeddings[gallery],
        gallery_labels=labels[gallery],
        gallery_ids=ids[gallery],
        distance=distance,
    )
    return items, found._replace(rows=rows[found.rows]), None


def _separations(
    recorded: BeforeTraining | None, items: Items, margin: float, distance: Distance
) -> tuple[Separation | None, Separation | None, int]:
    """Return the separation before and after training, and the number of samples.

    They are the samples recorded before training, or, without a record, whole classes of the evaluated set.
    """
    if recorded is not None and recorded.ids is not None and recorded.after is not None:
        return recorded.before, recorded.after, len(recorded.ids)
    rows = whole_classes(items.labels, 2000)
    return None, measure_separation(items.embeddings[rows], items.labels[rows], margin, distance), len(rows)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
