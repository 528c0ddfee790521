"""``sweep.html``: the best setting of a sweep, the interval of its figure, all settings, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metric_module.report.closed_set import CLASSES, TRAINED, closed_set, of_figure, titled
from metric_module.report.page import Link, Table, render
from metric_module.sweeps.ledger import DONE, FAILED, MISSING, Job, Plan, label, swept_keys
from metric_module.sweeps.objective import Objective
from metric_module.sweeps.plot import plot_settings
from metric_module.sweeps.settings import (
    Estimate,
    Setting,
    command_of,
    is_repeated,
    resume_command,
    settings,
    short,
    to_number,
)
from metric_module.sweeps.winner import best, learned, no_winner


def sweep_page(jobs: Sequence[Job], plan: Plan, folder: Path) -> str:
    """Render the page of a sweep.

    Args:
        jobs: All jobs of the sweep.
        plan: The plan of the sweep.
        folder: The folder of the sweep, as the user would type it.

    Returns:
        A whole HTML document.
    """
    found, repetition = settings(jobs), repetition_of(jobs)
    winners, nothing = best(found, plan.objective), no_winner(jobs, plan.objective)
    count = {status: sum(job.status == status for job in jobs) for status in (DONE, FAILED, MISSING)}
    values: dict[str, Any] = {
        "total": len(jobs),
        "counts": ", ".join(f"{number} {status}" for status, number in count.items() if number or status == DONE),
        "unfinished": count[DONE] < len(jobs),
        "resume": resume_command(folder),
        "monitor": plan.monitor,
        "repetition": repetition,
        "compared": len(found) > 1,
        "lower": plan.objective.lower,
        "closed": any(closed_set(of_figure(plan.monitor, job.figures)) for job in jobs),
        "winners": winners,
        "no_winner": nothing,
        "test": _test_figures(found, repetition),
        "jobs": _jobs(jobs, plan.monitor, folder),
        **_unfinished(jobs),
    }
    if winners:
        made = winners[0].estimate(plan.monitor)
        assert made is not None
        several = len(winners[0].jobs) > 1
        values |= {
            "mean": f"{winners[0].titled(plan.monitor, plan.monitor)} {made.mean:.4f} ({interval(made, repetition)})",
            "over": f"{made.n} of {len(winners[0].jobs)} {repetition}s" if several else f"one {repetition}",
            "command": command_of(winners[0], plan.options),
            "idle": [one for one in found if one.estimate(plan.monitor) and not learned(one.jobs, plan.monitor)],
        }
    if winners or nothing:
        values["plot"] = plot_settings(found, plan.monitor)
        values["settings"] = _settings_table(found, plan.objective, repetition)
    return render("sweep", f"Sweep {folder.name}", values, plots="plot" in values)


def repetition_of(jobs: Sequence[Job]) -> str:
    """Name what repeats a setting: ``seed``, ``fold``, or ``run`` if both were swept."""
    keys = {key.lstrip("+").rpartition(".")[2] for key in swept_keys(jobs) if is_repeated(key)}
    return keys.pop() if len(keys) == 1 else "run" if keys else "seed"


def interval(made: Estimate, repetition: str) -> str:
    """Write the interval of an estimate, ``0.512 to 0.544``."""
    if made.half is None:
        return f"one {repetition}, no interval"
    return f"{made.mean - made.half:.4f} to {made.mean + made.half:.4f}"


def _cells(setting: Setting, figure: str, repetition: str) -> list[str]:
    """Write number of repetitions, mean and interval of a figure."""
    made = setting.estimate(figure)
    if made is None:
        return ["0", "", "no figure"]
    return [str(made.n), setting.titled(f"{made.mean:.4f}", figure), interval(made, repetition)]


def _settings_table(found: Sequence[Setting], objective: Objective, repetition: str) -> Table:
    """Return a row for each setting, the best first."""
    keys = list(dict.fromkeys(key for setting in found for key in setting.choice))
    sign = 1 if objective.lower else -1
    made = [(setting, setting.estimate(objective.monitor)) for setting in found]
    start = [stage for stage in ("before", "raw") if any(setting.start(stage, objective.monitor) for setting in found)]
    rows = [
        [
            *([short(setting.choice.get(key, "")) for key in keys] or ["all"]),
            *_cells(setting, objective.monitor, repetition),
            *(f"{early.mean:.4f}" if (early := setting.start(stage, objective.monitor)) else "" for stage in start),
        ]
        for setting, got in sorted(made, key=lambda pair: (pair[1] is None, sign * pair[1].mean if pair[1] else 0.0))
    ]
    header = [*(keys or ["setting"]), f"{repetition}s", "mean", "95 % interval", *start]
    first = len(header) - 3 - len(start)
    numbers = [place for place in range(first) if all(to_number(row[place]) is not None for row in rows)]
    return Table("settings", header, rows, numeric=[*numbers, *range(first, len(header))])


def _test_figures(found: Sequence[Setting], repetition: str) -> Table:
    """Return a row for each setting and test figure except counts; no rows if the jobs did not evaluate test."""
    figures = {name for setting in found for job in setting.jobs for name in job.figures}
    counts = {f"test/{count}" for count in (CLASSES, TRAINED)}
    names = sorted(name for name in figures - counts if name.startswith("test/") and "queries" not in name)
    rows = [
        [setting.name, name.removeprefix("test/"), *_cells(setting, name, repetition)]
        for setting in found
        for name in names
        if setting.estimate(name) is not None
    ]
    header = ["setting", "figure", f"{repetition}s", "mean", "95 % interval"]
    first = 0 if len(found) > 1 else 1  # a single setting needs no name
    return Table("test", header[first:], [row[first:] for row in rows], numeric=range(2 - first, 5 - first))


def _jobs(jobs: Sequence[Job], monitor: str, folder: Path) -> Table:
    """Return the finished jobs, with a link to the report of each."""
    keys = swept_keys(jobs)
    rows = [
        [str(job.number), short(label(job, keys)), _figure(job, monitor), report]
        for job in jobs
        if job.status == DONE
        for report in [_report(job, folder)]
    ]
    return Table("jobs", ["job", "setting", monitor or "figure", "report"], rows, numeric=(0, 2))


def _figure(job: Job, monitor: str) -> str:
    """Write the figure of a job; empty without it."""
    return titled(f"{job.figures[monitor]:.4f}", of_figure(monitor, job.figures)) if monitor in job.figures else ""


def _report(job: Job, folder: Path) -> str | Link:
    found = (folder / job.folder / "report.html").is_file()
    return Link("report", f"{quote(job.folder)}/report.html") if found else "none"


def _unfinished(jobs: Sequence[Job]) -> dict[str, Table]:
    """Return the failed and the missing jobs."""
    keys = swept_keys(jobs)
    failed = [
        [str(job.number), job.reason, short(label(job, keys)), str(job.exit_code), job.folder]
        for job in jobs
        if job.status == FAILED
    ]
    missing = [
        [str(job.number), short(label(job, keys)), "stopped" if job.folder else "not started"]
        for job in jobs
        if job.status == MISSING
    ]
    return {
        "failed": Table("failed", ["job", "reason", "setting", "exit code", "folder"], failed, numeric=(0, 3)),
        "missing": Table("missing", ["job", "setting", "state"], missing, numeric=(0,)),
    }
