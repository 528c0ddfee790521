"""One job of a sweep: its command, its figure, and what a failure leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from metric_module.cli.sweep import RUN, SweepReport, child_command, run_apart


def sweep(folder: Path, **changes: Any) -> tuple[DictConfig, DictConfig]:
    cfg = OmegaConf.create({"monitor": "val/map_at_r", "test": None, **changes})
    overrides = {
        "task": ["margin=0.1", "+encoder.name='a b'"],
        "hydra": ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra/launcher=joblib", "hydra.job.name=mine"],
    }
    sources = [{"provider": "main", "path": "/conf"}, {"provider": "command-line", "path": "/my conf"}]
    runtime = {"output_dir": str(folder), "config_sources": sources}
    hydra = OmegaConf.create({"overrides": overrides, "runtime": runtime, "job": {"num": 3}})
    OmegaConf.set_readonly(hydra, True)
    return cfg, hydra


def answer(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, code))


def test_the_command_of_a_job(tmp_path: Path) -> None:
    command = child_command(*sweep(tmp_path / "it's 3"))
    assert command[:4] == [sys.executable, str(RUN), "--config-dir", "/my conf"]
    quoted = f"hydra.run.dir='{tmp_path}/it\\'s 3'"
    assert command[4:] == ["margin=0.1", "+encoder.name='a b'", "hydra.job.name=mine", quoted, "test=false"]
    assert RUN.is_file()


@pytest.mark.parametrize("test", [True, False])
def test_test_may_be_asked_for(tmp_path: Path, test: bool) -> None:
    assert not [word for word in child_command(*sweep(tmp_path, test=test)) if word.startswith("test=")]


@pytest.mark.parametrize(
    ("written", "figure"),
    [
        ({"val": {"map_at_r": 0.25}}, 0.25),
        ({"val": {"map_at_r": None}}, None),
        ({"test": {"map_at_r": 0.25}}, None),
        (None, None),
    ],
)
def test_the_figure_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: dict[str, Any] | None, figure: float | None
) -> None:
    answer(monkeypatch, 0)
    if written is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(written))
    assert run_apart(*sweep(tmp_path)) == figure
    assert not (tmp_path / "failed.json").exists()


def test_failed_jobs_are_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, -9)
    figure = run_apart(*sweep(tmp_path / "sweep" / "3"))
    assert figure is not None and figure != figure
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
    with pytest.raises(SystemExit) as stop:
        SweepReport().on_multirun_end(config)
    assert stop.value.code == 1
    message = f"error: job 3 (margin=0.1 +encoder.name='a b') failed with exit code -9: {tmp_path}/sweep/3\n"
    assert capsys.readouterr().err == message


def test_a_sweep_without_failures_ends_quietly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SweepReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert capsys.readouterr().err == ""
