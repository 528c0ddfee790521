"""The start and the end of a sweep: write its plan, its ledger and its page, and report failed jobs."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from metric_module.storage.atomic import write_whole
from metric_module.storage.folders import remove
from metric_module.sweeps.job import config_dirs
from metric_module.sweeps.ledger import DONE, FAILED, SWEEP, Job, Plan, read_plan, write_ledger, write_plan
from metric_module.sweeps.settings import resume_command

_running: dict[Path, bool] = {}  # folders of unfinished sweeps, and whether this process created them
_handlers: dict[int, Any] = {}  # the signal handlers that were there before


class SweepReport(Callback):
    """Callback of Hydra that writes the plan of a sweep before its first job and lets signals end the sweep in order.

    Args:
        resume: Whether the sweep continues in a folder that has a plan; ``resume_sweep=<folder>`` sets it.
    """

    def __init__(self, resume: bool = False) -> None:
        self.resume = resume

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the plan; from here on, :func:`finish_sweep` or :func:`leave_sweep` must close the sweep."""
        folder = _short(Path(config.hydra.sweep.dir))
        if threading.current_thread() is threading.main_thread():
            _handlers.update({number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)})
        if not self.resume:
            write_plan(folder, plan_of(config))
        _running[folder] = not self.resume


def plan_of(config: DictConfig) -> Plan:
    """Return the plan of a sweep; it lists the jobs if Hydra's own sweeper is used."""
    hydra = config.hydra
    words, hydra_words = list(hydra.overrides.task), list(hydra.overrides.hydra)
    return Plan(str(config.monitor), words, hydra_words, config_dirs(hydra), _jobs(hydra, words))


def finish_sweep() -> int:
    """Write ``sweep.csv`` and ``sweep.html`` after the last job, and name the jobs that failed.

    Returns:
        The exit code: 1 if a job failed; 0 if none did, or if there was no sweep.
    """
    code = 0
    while _running:
        folder, _ = _running.popitem()
        failed = [job for job in _write(folder) if job.status == FAILED]
        for job in failed:
            problem = f"job {job.number} ({' '.join(job.overrides)}) failed with exit code {job.exit_code}"
            print(f"error: {problem}: {folder / job.folder}", file=sys.stderr)
        if failed:
            code = 1
            print(_hint(folder), file=sys.stderr)
    return code


def leave_sweep() -> None:
    """Restore the signal handlers, and close a sweep that did not finish; remove its folder if no job started."""
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    _handlers.clear()
    while _running:
        folder, new = _running.popitem()
        if new and {path.name for path in folder.glob("*")} <= {SWEEP, "multirun.yaml"}:
            remove(folder)
        else:
            _write(folder)
            print(_hint(folder), file=sys.stderr)


def _write(folder: Path) -> list[Job]:
    """Write ``sweep.csv`` and ``sweep.html`` from the folders of the jobs."""
    from metric_module.sweeps.page import sweep_page  # plotly takes its time

    jobs = write_ledger(folder)
    write_whole(folder / "sweep.html", sweep_page(jobs, read_plan(folder), folder))
    done = sum(job.status == DONE for job in jobs)
    print(f"{done} of {len(jobs)} jobs done, written to {folder}/sweep.html and sweep.csv", flush=True)
    return jobs


def _short(folder: Path) -> Path:
    """Return the folder as the user would type it: relative to the current one, if inside it."""
    here, there = Path.cwd().resolve(), folder.resolve()
    return there.relative_to(here) if there.is_relative_to(here) else folder


def _hint(folder: Path) -> str:
    return f"to run the missing and failed jobs: {resume_command(folder)}"


def _jobs(hydra: Any, words: list[str]) -> list[list[str]] | None:
    """Return the overrides of each job as :class:`BasicSweeper` makes them; None for any other sweeper."""
    if not str(hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
        return None
    params: Any = OmegaConf.to_container(hydra.sweeper).get("params") or {}  # type: ignore[union-attr]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *words])
        return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    except HydraException:
        return None  # Hydra will report the error itself


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
