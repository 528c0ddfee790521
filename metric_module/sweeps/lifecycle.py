"""Start and end of a sweep: write the plan, then ``sweep.csv`` and ``sweep.html``, and report failed jobs."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from metric_module.errors import printable
from metric_module.storage.atomic import write_whole
from metric_module.storage.run_folder import contents, note_missing, remove_empty, remove_new
from metric_module.sweeps.job import config_dirs, typed_in
from metric_module.sweeps.ledger import DONE, FAILED, SWEEP, Job, Plan, read_plan, write_ledger, write_plan
from metric_module.sweeps.objective import direct, objective_of
from metric_module.sweeps.records import JOB
from metric_module.sweeps.settings import resume_command
from metric_module.sweeps.winner import no_winner

REFUSED = 2
_running: dict[Path, frozenset[Path] | None] = {}  # folder of each unfinished sweep, and what a new one found there
_handlers: dict[int, Any] = {}  # the handler to restore for each signal


class SweepReport(Callback):
    """Hydra callback that writes a sweep's plan before the first job, and turns signals into an orderly exit.

    Before a single run it only notes which part of the path of its folder is missing.

    Args:
        resume: Whether the sweep continues in a folder that has a plan; ``resume_sweep=<folder>`` sets it.
    """

    def __init__(self, resume: bool = False) -> None:
        self.resume = resume

    @override
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the missing folders before Hydra creates them."""
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # Hydra does the same directly afterwards; the folder's name needs it
        note_missing(Path(config.hydra.run.dir))
        HydraConfig.instance().cfg = before

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the plan; from here on, :func:`finish_sweep` or :func:`leave_sweep` must close the sweep."""
        folder = _short(Path(config.hydra.sweep.dir))
        if threading.current_thread() is threading.main_thread():
            _handlers.update({number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)})
        if not self.resume and (folder / SWEEP).is_file():
            given = f"to continue it give resume_sweep={folder}, for another sweep give another folder"
            print(f"error: hydra.sweep.dir: {folder} holds a sweep; {given}", file=sys.stderr)
            raise SystemExit(REFUSED)  # Hydra turns any other exception of a callback into a warning
        note_missing(folder)
        _running[folder] = None if self.resume else contents(folder)
        if not self.resume:
            write_plan(folder, plan_of(config))
        direct(config.hydra, read_plan(folder).objective)


def plan_of(config: DictConfig) -> Plan:
    """Return the plan of a sweep, with the overrides of every job if Hydra's basic sweeper is used."""
    hydra = config.hydra
    overrides, hydra_overrides = typed_in(hydra.overrides.task), typed_in(hydra.overrides.hydra)
    monitor, lower = objective_of(config)
    return Plan(monitor, overrides, hydra_overrides, config_dirs(hydra), _jobs(hydra, overrides), lower)


def finish_sweep() -> int:
    """Write ``sweep.csv`` and ``sweep.html`` after the last job, and print the jobs that failed.

    Returns:
        The exit code: 1 if a job failed; 0 if none did, or if there was no sweep.
    """
    code = 0
    while _running:
        folder, _ = _running.popitem()
        failed = [job for job in _write(folder) if job.status == FAILED]
        for job in failed:
            problem = f"job {job.number} ({' '.join(job.overrides)}) failed with exit code {job.exit_code}"
            print(printable(f"error: {problem}: {folder / job.folder}"), file=sys.stderr)
        if failed:
            code = 1
            print(_hint(folder), file=sys.stderr)
    return code


def leave_sweep(refused: bool = False) -> None:
    """Restore the signal handlers, and clean up if the sweep did not finish.

    The folder of a new sweep is removed if no job started. Otherwise ``sweep.csv`` and ``sweep.html`` are written, and
    the command that resumes the sweep is printed if a job is missing or failed.

    Args:
        refused: Whether a mistake of the user ended the sweep. If that was a resumed one, its command is not printed:
            it would be rejected again.
    """
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    _handlers.clear()
    while _running:
        folder, found = _running.popitem()
        if found is not None and not any(folder.rglob(JOB)):
            remove_new(folder, found)
            remove_empty()
        else:
            rejected = refused and found is None
            jobs = _write(folder, quiet=rejected)
            unfinished = any(job.status != DONE for job in jobs) or read_plan(folder).jobs is None
            if unfinished and not rejected:
                print(_hint(folder), file=sys.stderr)


def _write(folder: Path, quiet: bool = False) -> list[Job]:
    """Write ``sweep.csv`` and ``sweep.html`` from the folders of the jobs; say so unless ``quiet``."""
    from metric_module.sweeps.page import sweep_page  # imported late: it imports plotly, which is slow

    jobs, plan = write_ledger(folder), read_plan(folder)
    write_whole(folder / "sweep.html", sweep_page(jobs, plan, folder))
    done = sum(job.status == DONE for job in jobs)
    if not quiet:
        print(f"{done} of {len(jobs)} jobs done, written to {folder}/sweep.html and sweep.csv", flush=True)
        if line := no_winner(jobs, plan.objective):
            print(line, flush=True)
    return jobs


def _short(folder: Path) -> Path:
    """Return the folder relative to the current one if it is inside it, as a user would type it."""
    current, target = Path.cwd().resolve(), folder.resolve()
    return target.relative_to(current) if target.is_relative_to(current) else folder


def _hint(folder: Path) -> str:
    """Tell the user how to resume the sweep."""
    return printable(f"to run the missing and failed jobs: {resume_command(folder)}")


def _jobs(hydra: Any, overrides: list[str]) -> list[list[str]] | None:
    """Return the overrides of each job, split as :class:`BasicSweeper` does.

    None for another sweeper, or if the overrides are invalid.
    """
    if not str(hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
        return None
    params: Any = OmegaConf.to_container(hydra.sweeper).get("params") or {}  # type: ignore[union-attr]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *overrides])
        return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    except HydraException:
        return None  # Hydra parses the overrides again, and reports the error


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit with the shell's exit code for a signal; unlike the signal itself, this runs ``finally`` blocks."""
    raise SystemExit(128 + number)
