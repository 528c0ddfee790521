"""The figures of a run: evaluate whole sets, write ``metrics.json``, and print a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metric_module.tasks.build import Parts
from metric_module.tasks.embedding.split import split_loader
from metric_module.tasks.run_files import write_metrics

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


def report(parts: Parts, figures: Figures, folder: Path) -> dict[str, float]:
    """Print a table and write ``metrics.json``, on the first process only.

    Args:
        parts: Module, data and trainer.
        figures: The figures by stage and name.
        folder: The folder of the run.

    Returns:
        The same figures in one dict, ``{"val/recall_at_1": ...}``.

    Raises:
        UserError: If the file cannot be written.
    """
    if parts.trainer.is_global_zero:
        Console().print(table(figures))  # first: the files may be impossible to write
        write_metrics(folder, figures)
        print(f"written to {folder}")
    return {f"{stage}/{name}": value for stage, row in figures.items() for name, value in row.items()}


def table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table with a row for each figure and a column for each stage."""
    made = Table()
    made.add_column("figure")
    for stage in figures:
        made.add_column(stage, justify="right")
    for name in dict.fromkeys(name for row in figures.values() for name in row):
        made.add_row(name, *(_spell(row[name]) if name in row else "" for row in figures.values()))
    return made


def _spell(value: float) -> str:
    """Write a count as a whole number, any other figure with four digits."""
    return f"{value:.0f}" if value > 1 and value.is_integer() else f"{value:.4f}"
