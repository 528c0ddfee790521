"""A sweep: every job in a process of its own, so that a crash, a leak or DDP in one touches no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from typing_extensions import override

from metric_module.cli.folders import remove

RUN = Path(__file__).resolve().parents[2] / "run.py"
FAILED = "failed.json"

_folders: list[Path] = []

# These belong to the sweep, not to its jobs.
_OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/sweeper", "hydra/launcher")


def run_apart(cfg: DictConfig, hydra: Any) -> float | None:
    """Run one job of a sweep as a child process, and read back its figure.

    Args:
        cfg: The job's composed configuration.
        hydra: Hydra's own configuration of the job.

    Returns:
        The figure ``cfg.monitor``; NaN if the job failed, None if it has no such figure.
    """
    folder = Path(hydra.runtime.output_dir)
    command = child_command(cfg, hydra)
    code = subprocess.run(command, check=False).returncode
    if code:
        failure = {"job": hydra.job.num, "overrides": list(hydra.overrides.task), "exit_code": code}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text(json.dumps(failure, indent=2) + "\n")
        return float("nan")
    path = folder / "metrics.json"
    stage, _, name = cfg.monitor.partition("/")
    figure = json.loads(path.read_text()).get(stage, {}).get(name) if path.is_file() else None
    return None if figure is None else float(figure)


def child_command(cfg: DictConfig, hydra: Any) -> list[str]:
    """The command of one job: its overrides in its folder, and test left alone unless it was asked for.

    Args:
        cfg: The job's composed configuration.
        hydra: Hydra's own configuration of the job.

    Returns:
        Program and arguments.
    """
    command = [sys.executable, str(RUN)]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            command += ["--config-dir", source.path]
    command.extend(hydra.overrides.task)
    command.extend(word for word in hydra.overrides.hydra if not word.lstrip("+~").startswith(_OF_THE_SWEEP))
    quoted = str(hydra.runtime.output_dir).replace("'", "\\'")
    command.append(f"hydra.run.dir='{quoted}'")
    return command if cfg.test is not None else [*command, "test=false"]


def forget_sweep() -> None:
    """Remove the folder of a sweep that was refused before its first job."""
    for folder in _folders:
        if folder.is_dir() and [path.name for path in folder.iterdir()] == ["multirun.yaml"]:
            remove(folder)


class SweepReport(Callback):
    """After a sweep, name the jobs that failed and end with exit code 1."""

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder, in case the sweep cannot be composed."""
        _folders.append(Path(config.hydra.sweep.dir))

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read what the jobs left, in whatever process they ran."""
        folder = Path(config.hydra.sweep.dir)
        failures = [(path.parent, json.loads(path.read_text())) for path in sorted(folder.rglob(FAILED))]
        for place, failure in failures:
            what = f"job {failure['job']} ({' '.join(failure['overrides'])})"
            print(f"error: {what} failed with exit code {failure['exit_code']}: {place}", file=sys.stderr)
        if failures:
            raise SystemExit(1)
