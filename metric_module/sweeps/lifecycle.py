"""The beginning and the end of a sweep: its plan, its ledger, its page, and what it says."""

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

_under_way: dict[Path, bool] = {}  # whether the folder is a new one
_handlers: dict[int, Any] = {}


class SweepReport(Callback):
    """Writes the plan of a sweep before its first job, and has signals end the sweep in order.

    Args:
        resume: Whether the sweep goes on in a folder that has a plan; ``resume_sweep=<folder>`` sets it.
    """

    def __init__(self, resume: bool = False) -> None:
        self.resume = resume

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the plan; from here on :func:`finish_sweep` or :func:`leave_sweep` accounts for the sweep."""
        folder = _short(Path(config.hydra.sweep.dir))
        if threading.current_thread() is threading.main_thread():
            _handlers.update({number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)})
        if not self.resume:
            write_plan(folder, plan_of(config))
        _under_way[folder] = not self.resume


def plan_of(config: DictConfig) -> Plan:
    """What a sweep is asked to do; the jobs themselves if Hydra's own sweeper lists them."""
    hydra = config.hydra
    words, hydra_words = list(hydra.overrides.task), list(hydra.overrides.hydra)
    return Plan(str(config.monitor), words, hydra_words, config_dirs(hydra), _jobs(hydra, words))


def finish_sweep() -> int:
    """After Hydra: write ``sweep.csv`` and ``sweep.html`` of a sweep, and name the jobs that failed.

    Returns:
        The exit code: 1 if a job failed; 0 if none did, or if there was no sweep.
    """
    code = 0
    while _under_way:
        folder, _ = _under_way.popitem()
        failed = [job for job in _write(folder) if job.status == FAILED]
        for job in failed:
            what = f"job {job.number} ({' '.join(job.overrides)}) failed with exit code {job.exit_code}"
            print(f"error: {what}: {folder / job.folder}", file=sys.stderr)
        if failed:
            code = 1
            print(_hint(folder), file=sys.stderr)
    return code


def leave_sweep() -> None:
    """Hand the signals back, and account for a sweep that did not come to its end; without a job its folder goes."""
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    _handlers.clear()
    while _under_way:
        folder, new = _under_way.popitem()
        if new and {path.name for path in folder.glob("*")} <= {SWEEP, "multirun.yaml"}:
            remove(folder)
        else:
            _write(folder)
            print(_hint(folder), file=sys.stderr)


def _write(folder: Path) -> list[Job]:
    """Write ``sweep.csv`` and ``sweep.html`` from what the folders of the jobs say."""
    from metric_module.sweeps.page import sweep_page  # plotly takes its time

    jobs = write_ledger(folder)
    write_whole(folder / "sweep.html", sweep_page(jobs, read_plan(folder), folder))
    done = sum(job.status == DONE for job in jobs)
    print(f"{done} of {len(jobs)} jobs done, written to {folder}/sweep.html and sweep.csv", flush=True)
    return jobs


def _short(folder: Path) -> Path:
    """The folder as its user would type it."""
    here, there = Path.cwd().resolve(), folder.resolve()
    return there.relative_to(here) if there.is_relative_to(here) else folder


def _hint(folder: Path) -> str:
    return f"to run what is missing or failed: {resume_command(folder)}"


def _jobs(hydra: Any, words: list[str]) -> list[list[str]] | None:
    """The overrides of each job, as :class:`BasicSweeper` will ask for them; None for any other sweeper."""
    if not str(hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
        return None
    params: Any = OmegaConf.to_container(hydra.sweeper).get("params") or {}  # type: ignore[union-attr]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *words])
        return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    except HydraException:
        return None  # Hydra says itself what is wrong with it


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
