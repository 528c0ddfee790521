"""One job of a sweep as a child process, so that a crash, a leak or DDP in it affects no other job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metric_module.config.hydra_options import check_words
from metric_module.config.inheritance import CHILD
from metric_module.errors import UserError
from metric_module.storage.folders import quoted
from metric_module.storage.run_folder import CONFIG, check_free
from metric_module.sweeps.ledger import (
    DONE,
    MISSING,
    Job,
    place_of,
    read_job,
    read_plan,
    same_job,
    write_job,
    write_ledger,
)
from metric_module.sweeps.process import hold, run_child
from metric_module.sweeps.records import JOB

# Options of the sweep, which its jobs do not get.
_OF_THE_SWEEP = (
    *("hydra.mode", "hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/sweeper", "hydra/launcher"),
    "hydra.callbacks.report",
)


def run_apart(cfg: DictConfig, hydra: Any) -> float | None:
    """Run one job of a sweep as a child process, record it in the ledger, and return its figure.

    A resumed sweep does not repeat its finished jobs, and continues a job that has a checkpoint.

    Args:
        cfg: The job's composed configuration.
        hydra: Hydra's own configuration of the job.

    Returns:
        The figure ``cfg.monitor``, or that of the sweep if it is null; NaN if the job failed, None if the job does not
        have this figure.

    Raises:
        SystemExit: If a signal stopped the job; the sweep stops with it.
        UserError: If the sweeper of a resumed sweep asks for another job in place of a finished one.
    """
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.runtime.cwd) / hydra.sweep.dir
    with hold(folder) as held:  # before reading: a process that still works there may finish the job
        job = read_job(folder, sweep) if hydra.callbacks.report.resume else None
        if not hydra.callbacks.report.resume:
            check_free(folder)
        if job is None or job.status != DONE:
            job = _run(cfg, hydra, sweep, held)
    words = typed_in(hydra.overrides.task)
    if not same_job(job, words):
        had, asks = " ".join(job.overrides), " ".join(words)
        raise UserError(f"resume_sweep: job {job.number} was run with {had}, and the sweeper now asks for {asks}")
    return job.figures.get(_monitor(cfg, sweep)) if job.status == DONE else float("nan")


def _run(cfg: DictConfig, hydra: Any, sweep: Path, held: list[int]) -> Job:
    """Run the process of a job, and record its start and its end."""
    folder, number, words = Path(hydra.runtime.output_dir), hydra.job.num, tuple(typed_in(hydra.overrides.task))
    new = not (folder / JOB).is_file()
    place = place_of(folder, sweep)
    write_job(folder, Job(number, place, words, MISSING))
    ended = run_child(child_command(cfg, hydra), held)
    if ended.signals and ended.code and new and not (folder / CONFIG).is_file():
        (folder / JOB).unlink()  # it was stopped before it started
        raise SystemExit(128 + ended.signals[0])
    code = None if ended.signals and ended.code else ended.code  # a job that a signal stopped has not failed
    write_job(folder, Job(number, place, words, MISSING, code, round(ended.seconds, 1), ended.reason))
    write_ledger(sweep)
    if ended.signals:
        raise SystemExit(128 + ended.signals[0])
    job = read_job(folder, sweep)
    assert job is not None
    monitor = _monitor(cfg, sweep)
    figure = f", {monitor} {job.figures[monitor]:.4f}" if monitor in job.figures else ""
    print(f"job {number} {job.status} after {ended.seconds:.0f} s{figure}", flush=True)
    return job


def _monitor(cfg: DictConfig, sweep: Path) -> str:
    """Return the figure of a job: its own, or that of the sweep, which has asked the metrics."""
    monitor: str = read_plan(sweep).monitor if cfg.monitor is None else cfg.monitor
    return monitor


def child_command(cfg: DictConfig, hydra: Any) -> list[str]:
    """Return the command that runs one job in its folder, without the test set unless ``cfg.test`` says otherwise.

    Args:
        cfg: The job's composed configuration.
        hydra: Hydra's own configuration of the job.

    Returns:
        Program and arguments.

    Raises:
        UserError: If an override of the job is an option of the command line.
    """
    folder = Path(hydra.runtime.output_dir)
    words = typed_in(hydra.overrides.task)
    if hydra.callbacks.report.resume and any(folder.glob("checkpoints/*.ckpt")):
        words = [*(word for word in words if not word.startswith("ckpt_path=")), "ckpt_path=last"]
    check_words([*words, *typed_in(hydra.overrides.hydra)])
    command = [*CHILD, *config_dirs(hydra), *words]
    command.extend(word for word in typed_in(hydra.overrides.hydra) if not word.lstrip("+~").startswith(_OF_THE_SWEEP))
    command.append(f"hydra.run.dir={quoted(folder)}")
    return command if cfg.test is not None else [*command, "test=false"]


def typed_in(overrides: ListConfig) -> list[str]:
    """Return overrides as they were typed: an interpolation in one is for the job to resolve.

    Args:
        overrides: ``hydra.overrides.task`` or ``hydra.overrides.hydra``.
    """
    words: Any = OmegaConf.to_container(overrides)
    return list(words)


def config_dirs(hydra: Any) -> list[str]:
    """Return the option ``--config-dir`` as it was typed; empty without one."""
    found = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return [word for path in found for word in ("--config-dir", path)]
