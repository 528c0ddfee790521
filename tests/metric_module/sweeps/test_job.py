"""One job of a sweep: its command, its figure, its record, and how a resumed sweep treats it."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from metric_module.errors import UserError
from metric_module.sweeps.job import child_command, run_apart
from metric_module.sweeps.ledger import FAILED, MISSING, Job, Plan, read_jobs, write_job, write_plan
from metric_module.sweeps.process import Ended, hold

WORDS = ["margin=0.1", "+encoder.name='a b'"]


def sweep(folder: Path, resume: bool = False, words: Sequence[str] = WORDS, **changes: Any) -> tuple[Any, Any]:
    cfg = OmegaConf.create({"monitor": "val/map_at_r", "test": None, **changes})
    overrides = {
        "task": list(words),
        "hydra": ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra/launcher=joblib", "hydra.job.name=mine"],
    }
    sources = [{"provider": "main", "path": "/conf"}, {"provider": "command-line", "path": "/my conf"}]
    runtime = {"output_dir": str(folder), "config_sources": sources, "cwd": str(folder.parent)}
    hydra: DictConfig = OmegaConf.create({"overrides": overrides, "runtime": runtime, "job": {"num": 0}})
    hydra.sweep, hydra.callbacks = {"dir": "."}, {"report": {"resume": resume}}
    OmegaConf.set_readonly(hydra, True)
    write_plan(folder.parent, Plan("val/map_at_r", [], [], [], [list(words)]))
    return cfg, hydra


def answer(monkeypatch: pytest.MonkeyPatch, code: int, *signals: int) -> list[list[str]]:
    """Replace the child processes, and return the list of commands they would have run."""
    asked: list[list[str]] = []

    def run(command: list[str], inherit: list[int]) -> Ended:
        asked.append(command)
        folder = Path(next(word for word in command if word.startswith("hydra.run.dir=")).split("'")[1])
        assert len(inherit) == 1, "the folder is locked"
        assert read_jobs(folder.parent)[0].status == MISSING, "the job is recorded before it starts"
        return Ended(code, 1.25, "too bad" if code else "", list(signals))

    monkeypatch.setattr("metric_module.sweeps.job.run_child", run)
    return asked


def test_the_command_of_a_job(tmp_path: Path) -> None:
    command = child_command(*sweep(tmp_path / "it's 3"))
    assert command[:5] == [sys.executable, "-m", "metric_module", "--config-dir", "/my conf"]
    quoted = f"hydra.run.dir='{tmp_path}/it\\'s 3'"
    assert command[5:] == ["margin=0.1", "+encoder.name='a b'", "hydra.job.name=mine", quoted, "test=false"]


@pytest.mark.parametrize("test", [True, False])
def test_the_test_set_is_evaluated_on_request(tmp_path: Path, test: bool) -> None:
    assert not [word for word in child_command(*sweep(tmp_path / "0", test=test)) if word.startswith("test=")]


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
    cfg, hydra = sweep(tmp_path / "0")
    if written is not None:
        (tmp_path / "0").mkdir()
        (tmp_path / "0" / "metrics.json").write_text(json.dumps(written))
    assert run_apart(cfg, hydra) == figure
    assert "\n0,0,done,0,1.2" in (tmp_path / "sweep.csv").read_text()


def test_a_failed_job_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, -9)
    figure = run_apart(*sweep(tmp_path / "0"))
    assert figure is not None and figure != figure
    (job,) = read_jobs(tmp_path)
    assert job == Job(0, "0", tuple(WORDS), FAILED, -9, 1.2, "too bad", {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_sweep_and_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    answer(monkeypatch, 128 + number, number)
    with pytest.raises(SystemExit) as stop:
        run_apart(*sweep(tmp_path / "0"))
    assert stop.value.code == 128 + number
    assert [(job.status, job.exit_code) for job in read_jobs(tmp_path)] == [(MISSING, None)]


@pytest.mark.parametrize("started", [True, False])
def test_a_job_that_was_stopped_before_it_started_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    answer(monkeypatch, 130, signal.SIGINT)
    cfg, hydra = sweep(tmp_path / "0", resume=True)
    (tmp_path / "0").mkdir()
    if started:
        (tmp_path / "0" / "config.yaml").touch()
    with pytest.raises(SystemExit):
        run_apart(cfg, hydra)
    assert (tmp_path / "0" / "job.json").exists() is started


def test_a_job_never_replaces_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, 0)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"hydra.run.dir: .*/0 holds a run"):
        run_apart(*sweep(tmp_path / "0"))
    run_apart(*sweep(tmp_path / "0", resume=True))
    assert len(asked) == 1


def test_a_signal_after_the_last_step_stops_the_sweep_after_a_finished_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, 0, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run_apart(*sweep(tmp_path / "0"))
    assert [job.exit_code for job in read_jobs(tmp_path)] == [0]


def test_a_resumed_sweep_does_not_repeat_finished_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, 0)
    run_apart(*sweep(tmp_path / "0"))
    (tmp_path / "0" / "metrics.json").write_text('{"val": {"map_at_r": 0.5}}')
    assert run_apart(*sweep(tmp_path / "0", resume=True)) == 0.5
    assert len(asked) == 1
    run_apart(*sweep(tmp_path / "0"))
    assert len(asked) == 2, "a sweep that is not resumed runs everything"


def test_a_resumed_sweep_continues_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, 0)
    write_job(tmp_path / "0", Job(0, "", tuple(WORDS), FAILED, 1, 1.0, "bad"))
    words = [*WORDS, "ckpt_path=first.ckpt"]
    run_apart(*sweep(tmp_path / "0", resume=True, words=words))
    assert "ckpt_path=first.ckpt" in asked[0] and "ckpt_path=last" not in asked[0]
    (tmp_path / "0" / "checkpoints").mkdir()
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()
    write_job(tmp_path / "0", Job(0, "", tuple(WORDS), FAILED, 1, 1.0, "bad"))
    run_apart(*sweep(tmp_path / "0", resume=True, words=words))
    assert "ckpt_path=first.ckpt" not in asked[1] and "ckpt_path=last" in asked[1]


def test_a_sweeper_that_asks_for_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 0)
    run_apart(*sweep(tmp_path / "0"))
    message = r"resume_sweep: job 0 was run with margin=0.1 .*, and the sweeper now asks for margin=0.2$"
    with pytest.raises(UserError, match=message):
        run_apart(*sweep(tmp_path / "0", resume=True, words=["margin=0.2"]))


def test_a_job_that_another_process_finishes_meanwhile_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, 0)
    arguments = sweep(tmp_path / "0", resume=True)
    found: list[float | None] = []
    with hold(tmp_path / "0"):
        write_job(tmp_path / "0", Job(0, "", tuple(WORDS), MISSING))
        thread = threading.Thread(target=lambda: found.append(run_apart(*arguments)))
        thread.start()
        time.sleep(0.3)
        write_job(tmp_path / "0", Job(0, "", tuple(WORDS), MISSING, 0, 1.0))
        (tmp_path / "0" / "metrics.json").write_text('{"val": {"map_at_r": 0.75}}')
    thread.join(timeout=10)
    assert found == [0.75]
    assert not asked


def test_sweeps_are_rejected_on_a_system_without_file_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no ``fcntl``."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(UserError, match=r"sweeps need a POSIX system .*; run the jobs one by one, without -m"):
        run_apart(*sweep(tmp_path / "0"))
    assert not (tmp_path / "0").exists()
