"""The plan of a sweep, the records of its jobs, and ``sweep.csv``, which is computed from their folders."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from metric_module.config.monitor import is_error
from metric_module.storage.atomic import write_whole
from metric_module.sweeps.objective import Objective
from metric_module.sweeps.records import JOB, is_texts, job_folders, read_figures, read_record

SWEEP = "sweep.json"
DONE, FAILED, MISSING = "done", "failed", "missing"
REPEATED = ("seed", "datamodule.fold")
"""Keys whose values repeat a setting instead of making another one."""

_BEST_STEP = "val/best_step"
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the first four in full width
_PLAIN = re.compile(r"\+{1,2}[\w./@]+")
_MAY_DIFFER = ("trusted=", "debug=")  # in the same job, from one call to the next


class Plan(NamedTuple):
    """The plan of a sweep.

    Attributes:
        monitor: The figure that selects the best setting, such as ``val/map_at_r``; empty if there is none.
        words: Overrides of the sweep, without Hydra's own.
        hydra_words: Overrides of Hydra's own options.
        options: Options of Hydra's command line, such as ``--config-dir``.
        jobs: Overrides of each job; None if the sweeper chooses jobs during the sweep.
        lower: Whether the figure is better when it is lower; None, from earlier versions, leaves that to its name.
    """

    monitor: str
    words: list[str]
    hydra_words: list[str]
    options: list[str]
    jobs: list[list[str]] | None
    lower: bool | None = None

    @property
    def objective(self) -> Objective:
        """The figure and its direction."""
        return Objective(self.monitor, is_error(self.monitor) if self.lower is None else self.lower)


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
        number: Number of the job, from 0.
        folder: Its folder inside the folder of the sweep; empty if the job never started.
        overrides: Its overrides.
        status: ``done``, ``failed``, or ``missing`` if it did not start or was stopped.
        exit_code: Exit code of its process; None until there is one.
        seconds: Duration of its last process.
        reason: Why it failed, in one line.
        figures: The finite figures of its ``metrics.json``, ``{"val/map_at_r": ...}``.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]
    status: str
    exit_code: int | None = None
    seconds: float | None = None
    reason: str = ""
    figures: Mapping[str, float] = MappingProxyType({})

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the best checkpoint, 0 for the weights before training; None if it is not known."""
        return int(self.figures[_BEST_STEP]) if _BEST_STEP in self.figures else None


def write_plan(folder: Path, plan: Plan) -> None:
    """Write ``sweep.json``."""
    write_whole(folder / SWEEP, json.dumps(plan._asdict(), indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """Read ``sweep.json``.

    Raises:
        OSError: If the file is missing.
        ValueError: If it does not hold a plan.
    """
    found = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or {*found, "lower"} != set(Plan._fields):
        raise ValueError(f"expected {', '.join(Plan._fields)} in {folder / SWEEP}")
    plan = Plan(**found)
    lists = [plan.words, plan.hydra_words, plan.options, *(plan.jobs if isinstance(plan.jobs, list) else [])]
    if not all(map(is_texts, lists)) or not isinstance(plan.monitor, str) or not isinstance(plan.jobs, list | None):
        raise ValueError(f"expected lists of texts, and a monitor, in {folder / SWEEP}")
    return plan


def write_job(folder: Path, job: Job) -> None:
    """Write ``job.json`` into a job's folder, with the place of the folder in the sweep if the job knows it."""
    record: dict[str, Any] = {"job": job.number, "overrides": list(job.overrides), "exit_code": job.exit_code}
    record |= {"seconds": job.seconds, "reason": job.reason, **({"folder": job.folder} if job.folder else {})}
    write_whole(folder / JOB, json.dumps(record, indent=2) + "\n")


def read_job(folder: Path, sweep: Path) -> Job | None:
    """Read ``job.json`` and the figures from a job's folder.

    A finished job whose figures are damaged counts as missing.

    Args:
        folder: The folder of the job.
        sweep: The folder of the sweep.

    Returns:
        The job; None if no job started there, its record is damaged, or the record belongs to another folder.
    """
    found, place = read_record(folder), place_of(folder, sweep)
    if found is None or found.get("folder", place) != place:
        return None
    code = found["exit_code"]
    status = MISSING if code is None else FAILED if code else DONE
    figures = read_figures(folder) if status == DONE else {}
    if figures is None:
        code, status, figures = None, MISSING, {}
    return Job(found["job"], place, tuple(found["overrides"]), status, code, found["seconds"], found["reason"], figures)


def place_of(folder: Path, sweep: Path) -> str:
    """Return the place of a job's folder in the folder of the sweep; the whole path if it lies elsewhere."""
    inside, whole = folder.resolve(), sweep.resolve()
    return inside.relative_to(whole).as_posix() if inside.is_relative_to(whole) else str(inside)


def read_jobs(sweep: Path) -> list[Job]:
    """Read every job of a sweep by number: those that have a folder, and those that are only planned.

    Args:
        sweep: The folder of the sweep, with ``sweep.json`` in it.

    Raises:
        OSError: If ``sweep.json`` is missing.
        ValueError: If it does not hold a plan.
    """
    planned = read_plan(sweep).jobs
    started = {job.number: job for folder in job_folders(sweep) if (job := read_job(folder, sweep))}
    if planned is None:
        return [started[number] for number in sorted(started)]
    jobs = [Job(number, "", tuple(words), MISSING) for number, words in enumerate(planned)]
    found = [started.get(job.number, job) for job in jobs]
    return [one if same_job(one, job.overrides) else job for one, job in zip(found, jobs, strict=True)]


def same_job(job: Job, overrides: Sequence[str]) -> bool:
    """Return whether a job has these overrides; ``trusted`` and ``debug`` may differ."""
    words = [[word for word in every if not word.startswith(_MAY_DIFFER)] for every in (job.overrides, overrides)]
    return words[0] == words[1]


def values(job: Job) -> dict[str, str]:
    """Split each override into key and value.

    Example:
        >>> values(Job(0, "", ("margin=0.1", "~logger"), "missing"))
        {'margin': '0.1', '~logger': ''}
    """
    return {key: value for key, _, value in (word.partition("=") for word in job.overrides)}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Return the keys that do not have the same value in every job, in the order of the command line."""
    rows = [values(job) for job in jobs]
    return [key for key in dict.fromkeys(key for row in rows for key in row) if len({row.get(key) for row in rows}) > 1]


def label(job: Job, keys: Sequence[str]) -> str:
    """Write the overrides of a job that differ between jobs, or all of them if nothing was swept."""
    return " ".join(word for word in job.overrides if word.partition("=")[0] in keys) or " ".join(job.overrides)


def ledger(jobs: Sequence[Job]) -> str:
    """Write the jobs as CSV, one row each, with a column for every swept key and for every figure."""
    found = {name for job in jobs for name in job.figures}
    names = [*(["best_step"] if _BEST_STEP in found else []), *sorted(found - {_BEST_STEP})]
    header = ["job", "folder", "status", "exit_code", "seconds", *swept_keys(jobs), *names]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, extrasaction="ignore", lineterminator="\n")
    rows: list[dict[str, object]] = [{name: name for name in header}]
    rows += [
        {**values(job), **job.figures, **job._asdict(), "job": job.number, "best_step": job.best_step} for job in jobs
    ]
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def write_ledger(sweep: Path) -> list[Job]:
    """Read the jobs and write ``sweep.csv``.

    Args:
        sweep: The folder of the sweep.

    Returns:
        The jobs.
    """
    jobs = read_jobs(sweep)
    write_whole(sweep / "sweep.csv", ledger(jobs))
    return jobs


def cell(value: object) -> object:
    """Write a cell so that a spreadsheet reads no formula in it: an apostrophe before ``=``, ``+``, ``-`` and ``@``.

    Numbers and plain keys with a plus, such as ``+datamodule.fold``, stay as they are.

    Args:
        value: The value.

    Example:
        >>> cell("=1+1"), cell("-0.5"), cell("+datamodule.fold"), cell(0.5)
        ("'=1+1", '-0.5', '+datamodule.fold', 0.5)
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _PLAIN.fullmatch(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
