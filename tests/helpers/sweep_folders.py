"""Folders in the state in which a sweep leaves them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from metric_module.sweeps.ledger import MISSING, Job, Plan, write_job, write_plan


def plan(jobs: list[list[str]] | None, monitor: str = "val/map_at_r") -> Plan:
    return Plan(monitor, ["encoder=mlp"], ["hydra.mode=MULTIRUN"], [], jobs)


def grid(*words: str) -> list[list[str]]:
    """Each combination: ``grid("margin=1,2", "seed=1,2")`` has four."""
    keys = [word.partition("=") for word in words]
    rows = [[f"{key}={value}" for value in values.split(",")] for key, _, values in keys]
    return [list(job) for job in itertools.product(*rows)]


def leave(sweep: Path, jobs: Sequence[Sequence[str]], figures: Sequence[float | int | None]) -> None:
    """A sweep whose jobs reached a figure (a float), failed with an exit code (an int), or did not start (None)."""
    write_plan(sweep, plan([list(job) for job in jobs]))
    for number, (job, figure) in enumerate(zip(jobs, figures, strict=True)):
        if figure is None:
            continue
        code = figure if isinstance(figure, int) else 0
        reason = "ValueError: <b>bad</b> & ugly" if code else ""
        write_job(sweep / str(number), Job(number, "", tuple(job), MISSING, code, 1.5, reason))
        if not code:
            metrics = {"val": {"map_at_r": figure, "loss": 1 - figure}, "test": {"map_at_r": figure / 2}}
            (sweep / str(number) / "metrics.json").write_text(json.dumps(metrics))
