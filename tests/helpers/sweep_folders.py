"""Folders of sweeps, written as a sweep would write them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metric_module.sweeps.ledger import MISSING, Job, Plan, write_job, write_plan


def plan(jobs: list[list[str]] | None, monitor: str = "val/map_at_r") -> Plan:
    return Plan(monitor, ["encoder=mlp"], ["hydra.mode=MULTIRUN"], [], jobs)


def grid(*words: str) -> list[list[str]]:
    """List each combination: ``grid("margin=1,2", "seed=1,2")`` has four."""
    keys = [word.partition("=") for word in words]
    rows = [[f"{key}={value}" for value in values.split(",")] for key, _, values in keys]
    return [list(job) for job in itertools.product(*rows)]


def leave(
    sweep: Path,
    jobs: Sequence[Sequence[str]],
    figures: Sequence[float | int | None],
    steps: Sequence[int | None] = (),
    start: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> None:
    """Write a sweep whose jobs have a figure (a float), failed with an exit code (an int), or did not start (None).

    Args:
        sweep: The folder of the sweep.
        jobs: Overrides of each job.
        figures: Result of each job.
        steps: ``best_step`` of each job; none for None, or for a job without an entry.
        start: The figure of each job from before training, by stage.
    """
    write_plan(sweep, plan([list(job) for job in jobs]))
    for number, (job, figure) in enumerate(zip(jobs, figures, strict=True)):
        if figure is None:
            continue
        code = figure if isinstance(figure, int) else 0
        reason = "ValueError: <b>bad</b> & ugly" if code else ""
        write_job(sweep / str(number), Job(number, "", tuple(job), MISSING, code, 1.5, reason))
        if not code:
            metrics: dict[str, Any] = {
                "val": {"map_at_r": figure, "loss": 1 - figure},
                "test": {"map_at_r": figure / 2},
            }
            if number < len(steps) and steps[number] is not None:
                metrics["val"]["best_step"] = steps[number]
            metrics |= {stage: {"map_at_r": row[number], "loss": 1 - row[number]} for stage, row in start.items()}
            (sweep / str(number) / "metrics.json").write_text(json.dumps(metrics))
