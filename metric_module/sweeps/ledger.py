"""What is known of the jobs of a sweep: its plan, and what each job's folder says. The folder is the truth."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from metric_module.storage.atomic import write_whole

JOB = "job.json"
SWEEP = "sweep.json"
DONE, FAILED, MISSING = "done", "failed", "missing"
REPEATED = ("seed", "datamodule.fold")
"""Keys whose values repeat a setting and do not make another one."""

_ABOUT_THE_CALL = ("trusted=", "debug=")


class Plan(NamedTuple):
    """What a sweep was asked to do.

    Attributes:
        monitor: The figure to choose by, ``val/map_at_r``.
        words: Overrides of the sweep.
        hydra_words: Those of them that are Hydra's own.
        options: ``--config-dir`` and the like.
        jobs: Overrides of each job; None if the sweeper decides as it goes.
    """

    monitor: str
    words: list[str]
    hydra_words: list[str]
    options: list[str]
    jobs: list[list[str]] | None


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
        number: From 0.
        folder: Inside the sweep's; empty if the job never started.
        overrides: Its words.
        status: ``done``, ``failed``, or ``missing``: not started, or stopped before its end.
        exit_code: Of its process; None while there is none.
        seconds: That its process took, the last one if there were several.
        reason: Why it failed, in a line.
        figures: ``{"val/map_at_r": ...}`` of its ``metrics.json``, the finite ones.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]
    status: str
    exit_code: int | None = None
    seconds: float | None = None
    reason: str = ""
    figures: Mapping[str, float] = MappingProxyType({})


def write_plan(folder: Path, plan: Plan) -> None:
    """Write ``sweep.json``."""
    write_whole(folder / SWEEP, json.dumps(plan._asdict(), indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """Read ``sweep.json``.

    Raises:
        OSError: If there is none.
        ValueError: If it is none of ours.
    """
    found = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or set(found) != set(Plan._fields):
        raise ValueError(f"expected {', '.join(Plan._fields)} in {folder / SWEEP}")
    return Plan(**found)


def write_job(folder: Path, job: Job) -> None:
    """Write ``job.json`` into a job's folder."""
    known: dict[str, Any] = {"job": job.number, "overrides": list(job.overrides), "exit_code": job.exit_code}
    known |= {"seconds": job.seconds, "reason": job.reason}
    write_whole(folder / JOB, json.dumps(known, indent=2) + "\n")


def read_job(folder: Path, sweep: Path) -> Job | None:
    """What a job's folder says, figures included; None if no job started there."""
    path = folder / JOB
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    code = found["exit_code"]
    status = MISSING if code is None else FAILED if code else DONE
    figures = _figures(folder / "metrics.json") if status == DONE else {}
    place = _inside(folder, sweep)
    return Job(found["job"], place, tuple(found["overrides"]), status, code, found["seconds"], found["reason"], figures)


def read_jobs(sweep: Path) -> list[Job]:
    """Every job of a sweep, by number: those that left a folder, and those that are only planned.

    Args:
        sweep: The sweep's folder, with ``sweep.json`` in it.

    Raises:
        OSError: As :func:`read_plan`.
        ValueError: As :func:`read_plan`.
    """
    planned = read_plan(sweep).jobs
    found = [read_job(path.parent, sweep) for path in sorted(sweep.rglob(JOB))]
    started = {job.number: job for job in found if job is not None}
    if planned is None:
        return [started[number] for number in sorted(started)]
    jobs = [Job(number, "", tuple(words), MISSING) for number, words in enumerate(planned)]
    return [started[job.number] if same_job(started.get(job.number), job.overrides) else job for job in jobs]


def same_job(job: Job | None, overrides: Sequence[str]) -> bool:
    """Whether a folder's job is the one with these overrides, whatever a call adds to vouch or to debug."""
    own = [] if job is None else [word for word in job.overrides if not word.startswith(_ABOUT_THE_CALL)]
    return job is not None and own == [word for word in overrides if not word.startswith(_ABOUT_THE_CALL)]


def values(job: Job) -> dict[str, str]:
    """Key and value of each override.

    Example:
        >>> values(Job(0, "", ("margin=0.1", "~logger"), "missing"))
        {'margin': '0.1', '~logger': ''}
    """
    return {key: value for key, _, value in (word.partition("=") for word in job.overrides)}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Keys that do not have the same value in every job, in the order of the command line."""
    rows = [values(job) for job in jobs]
    return [key for key in dict.fromkeys(key for row in rows for key in row) if len({row.get(key) for row in rows}) > 1]


def label(job: Job, keys: Sequence[str]) -> str:
    """What sets a job apart: the swept keys, or all of its words if nothing was swept."""
    return " ".join(word for word in job.overrides if word.partition("=")[0] in keys) or " ".join(job.overrides)


def ledger(jobs: Sequence[Job]) -> str:
    """The jobs as CSV: a row each, with a column for every swept key and for every figure."""
    keys = swept_keys(jobs)
    names = sorted({name for job in jobs for name in job.figures})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "folder", "status", "exit_code", "seconds", *keys, *names])
    for job in jobs:
        row = values(job)
        known = [job.number, job.folder, job.status, job.exit_code, job.seconds]
        writer.writerow([*known, *(row.get(key, "") for key in keys), *(job.figures.get(name) for name in names)])
    return text.getvalue()


def write_ledger(sweep: Path) -> list[Job]:
    """Gather the jobs and write ``sweep.csv``.

    Args:
        sweep: The sweep's folder.

    Returns:
        The jobs.
    """
    jobs = read_jobs(sweep)
    write_whole(sweep / "sweep.csv", ledger(jobs))
    return jobs


def _inside(folder: Path, sweep: Path) -> str:
    place, whole = folder.resolve(), sweep.resolve()
    return place.relative_to(whole).as_posix() if place.is_relative_to(whole) else str(place)


def _figures(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    stages: dict[str, dict[str, float | None]] = json.loads(path.read_text(encoding="utf-8"))
    flat = {f"{stage}/{name}": value for stage, row in stages.items() for name, value in row.items()}
    return {name: float(value) for name, value in flat.items() if value is not None and math.isfinite(value)}
