"""The figures of a run: evaluate whole sets, write ``metrics.json``, and print a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metric_module.callbacks import BeforeTraining
from metric_module.config.checks import has_weights
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.report.closed_set import CLASSES, TRAINED, explained, titled
from metric_module.tasks.build import Parts
from metric_module.tasks.embedding.split import split_loader
from metric_module.tasks.run_files import write_metrics
from metric_module.training.monitor import lower_is_better

Figures = dict[str, dict[str, float]]
STAGES = ("val", "test")


def measure(parts: Parts, stages: Sequence[str]) -> Figures:
    """Evaluate the module with its current weights on whole sets.

    Args:
        parts: Module, data and trainer.
        stages: The sets to evaluate: ``"val"``, ``"test"``, or a split that Lightning has no stage for (``"train"``,
            ``"all"``), which is evaluated as a test is.

    Returns:
        The figures by stage and name.
    """
    run = {"val": parts.trainer.validate, "test": parts.trainer.test}
    figures: Figures = {}
    for stage in stages:
        if stage not in run:
            figures[stage] = _measure_split(parts, stage)
            continue
        for found in run[stage](parts.module, datamodule=parts.datamodule, verbose=False, weights_only=True):
            figures[stage] = {name.removeprefix(f"{stage}/"): float(value) for name, value in found.items()}
    return figures


def _measure_split(parts: Parts, split: str) -> dict[str, float]:
    """Evaluate a split as one set by the hooks of a test."""
    loader = split_loader(parts, split)
    trainer: Any = parts.trainer
    trainer.datamodule = parts.datamodule  # which the module asks for groups, queries and pairs
    loggers, trainer.loggers = trainer.loggers, []  # they would get the figures under the name of the test
    try:
        (found,) = trainer.test(parts.module, dataloaders=loader, verbose=False, weights_only=True)
    finally:
        trainer.loggers = loggers
    return {name.removeprefix("test/"): float(value) for name, value in found.items()}


def with_classes(figures: Figures, parts: Parts) -> Figures:
    """Add how many classes of val and test were trained on, if any.

    Args:
        figures: The figures by stage and name.
        parts: Module, data and trainer; the weights were trained on this data.
    """
    facts = DataModuleFacts(parts.datamodule)
    return {stage: row | (facts.trained_classes(stage) if stage in STAGES else {}) for stage, row in figures.items()}


def with_start(figures: Figures, parts: Parts, best_step: int | None) -> Figures:
    """Put the figures from before training first, and add the step of the best checkpoint to those of val.

    Args:
        figures: The figures by stage and name.
        parts: Module, data and trainer of a training.
        best_step: Optimizer steps of the best checkpoint; None if there is none.
    """
    recorded = before_training(parts)
    start = {} if recorded is None else {"raw": recorded.raw, "before": recorded.figures}
    if best_step is not None and "val" in figures:
        figures = figures | {"val": figures["val"] | {"best_step": float(best_step)}}
    return {stage: row for stage, row in start.items() if row} | figures


def before_training(parts: Parts) -> BeforeTraining | None:
    """Return the callback that measured val before training; None without one, or if it measured nothing."""
    callbacks = parts.trainer.callbacks  # type: ignore[attr-defined]
    return next((one for one in callbacks if isinstance(one, BeforeTraining) and one.figures), None)


def no_help(figures: Figures, monitor: str | None, parts: Parts, encoder: Mapping[str, Any]) -> str | None:
    """Say that training did not help, and what to try; None if it did, or if there is nothing to compare with.

    It did not if val ends no better than the encoder before training, or worse than the raw inputs.

    Args:
        figures: The figures by stage and name.
        monitor: The monitored figure, ``val/map_at_r``.
        parts: Module, data and trainer.
        encoder: Configuration of the encoder.
    """
    name = (monitor or "").removeprefix("val/")
    found = {stage: figures[stage][name] for stage in ("val", "before", "raw") if name in figures.get(stage, {})}
    if monitor is None or "val" not in found:
        return None
    sign = -1 if lower_is_better(monitor, parts.module.metric) else 1
    gain = {stage: sign * (found["val"] - value) for stage, value in found.items()}
    if gain.get("before", 1.0) > 0 and gain.get("raw", 0.0) >= 0:
        return None
    words = {"val": "after training", "before": "before", "raw": "for the raw inputs"}
    values = ", ".join(f"{value:.4f} {words[stage]}" for stage, value in found.items())
    return f"training did not help: {monitor} {values}; try {_advice(figures, parts, encoder)}, or more classes"


def _advice(figures: Figures, parts: Parts, encoder: Mapping[str, Any]) -> str:
    """Say what to try first; docs/small_data.md has the measurements behind it."""
    step = parts.trainer.global_step
    if figures["val"].get("best_step") == step > 0:  # still improving at the end
        return f"trainer.max_steps={2 * step}"
    kind = getattr(parts.module.preprocessing, "kind", None)
    experiment = {"image": "finetune", "text": "texts"}.get(str(kind))
    if has_weights(encoder) or experiment is None:
        return "a lower optimizer.lr"
    return f"experiment={experiment} (a pretrained encoder)"


def report(parts: Parts, figures: Figures, folder: Path, lines: Sequence[str] = ()) -> dict[str, float]:
    """Print a table and write ``metrics.json``, on the first process only.

    Args:
        parts: Module, data and trainer.
        figures: The figures by stage and name.
        folder: The folder of the run.
        lines: Lines to print below the table.

    Returns:
        The same figures in one dict, ``{"val/recall_at_1": ...}``.

    Raises:
        UserError: If the file cannot be written.
    """
    if parts.trainer.is_global_zero:
        Console().print(table(figures))  # first: the files may be impossible to write
        for line in filter(None, [explained(figures), *lines]):
            print(line)
        write_metrics(folder, figures)
        print(f"written to {folder}")
    return {f"{stage}/{name}": value for stage, row in figures.items() for name, value in row.items()}


def table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table with a row for each figure and a column for each stage; a closed set is named in its head."""
    made = Table()
    made.add_column("figure")
    for stage, row in figures.items():
        made.add_column(titled(stage, row), justify="right")
    for name in dict.fromkeys(name for row in figures.values() for name in row if name not in {CLASSES, TRAINED}):
        made.add_row(name, *(_spell(name, row[name]) if name in row else "" for row in figures.values()))
    return made


def _spell(name: str, value: float) -> str:
    """Write a count as a whole number, any other figure with four digits."""
    whole = name == "best_step" or (value > 1 and value.is_integer())
    return f"{value:.0f}" if whole else f"{value:.4f}"
