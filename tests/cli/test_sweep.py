"""Sweeps from the command line: stopped, killed and resumed; DDP jobs, one of which fails on one rank."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metric_module.sweeps.ledger import write_plan
from tests.helpers.command_line import command_in
from tests.helpers.sweep_folders import grid, leave, plan

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, str(ROOT / "run.py"))
CONF = ("-m", "--config-dir", str(ROOT / "tests" / "helpers" / "conf"), "trusted=[tests.helpers]")
TINY = ("encoder=tiny", "datamodule=clouds", "miner=all", "trainer.accelerator=cpu", "logger=csv")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*PROGRAM, *CONF, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.025)
    raise AssertionError(f"{path} did not come")


def rows(sweep: Path) -> list[tuple[str, ...]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return [(row["job"], row["status"], row["exit_code"]) for row in csv.DictReader(file)]


def steps(job: Path) -> list[int]:
    with (job / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_and_killed_is_resumed(tmp_path: Path) -> None:
    sweep = tmp_path / "mine"
    words = ("trainer.max_epochs=60", "trainer.check_val_every_n_epoch=60", "trainer.log_every_n_steps=1")
    process = start(tmp_path, "hydra.sweep.dir=mine", *TINY, *words, "seed=1,2")
    wait_for(sweep / "0/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130, said
    assert "Traceback" not in said and "stopped by SIGINT after step" in said
    assert said.endswith(f"to run the missing and failed jobs: {shlex.join(PROGRAM)} resume_sweep=mine\n")
    assert rows(sweep) == [("0", "missing", ""), ("1", "missing", "")]
    assert not (sweep / "1").exists(), "the sweep did not stop"
    assert "resume_sweep=mine" in (sweep / "sweep.html").read_text()

    process = start(tmp_path, "resume_sweep=mine")
    wait_for(sweep / "1/checkpoints/last.ckpt", process)
    process.kill()
    process.communicate()
    assert rows(sweep) == [("0", "done", "0"), ("1", "missing", "")]
    finished = {path: path.stat().st_mtime_ns for path in (sweep / "0").rglob("*.*") if ".hydra" not in path.parts}

    code, said = ended(start(tmp_path, "resume_sweep=mine"))
    assert code == 0, said
    assert rows(sweep) == [("0", "done", "0"), ("1", "done", "0")]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished job was touched"
    assert "2 of 2 seeds" in (sweep / "sweep.html").read_text()
    for job in ("0", "1"):
        assert steps(sweep / job) == sorted(set(steps(sweep / job))) and steps(sweep / job)[-1] >= 239
        assert "Restored all states from the checkpoint" in (sweep / job / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["1", "1,9"], ids=["fails", "fails-or-not"])
def test_one_rank_of_one_job_fails(tmp_path: Path, ranks: str) -> None:
    """Pitfall 9: each job has the number of ranks that it asked for, its own folder and its own line."""
    fail = ("+callbacks.fail._target_=tests.helpers.small.FailOnRank", f"+callbacks.fail.rank={ranks}")
    short = ("trainer=ddp_cpu", "trainer.max_epochs=1", "callbacks=last_checkpoint")
    code, said = ended(start(tmp_path, "hydra.sweep.dir=mine", *TINY, *short, "trainer.devices=2,1", *fail))
    assert code == 1, said
    sweep, devices = tmp_path / "mine", [2] * len(ranks.split(",")) + [1] * len(ranks.split(","))
    assert [status for _, status, _ in rows(sweep)] == ["failed"] + ["done"] * (len(devices) - 1)
    found = {path.parent.name + path.name.removeprefix("rank") for path in sweep.glob("*/rank-*")}
    assert found == {f"{job}-{rank}-of-{count}" for job, count in enumerate(devices) for rank in range(count)}
    failed = json.loads((sweep / "0" / "job.json").read_text())
    assert failed["exit_code"] != 0 and failed["reason"] == "RuntimeError: injected on rank 1"
    assert "error: job 0 (" in said and f"failed with exit code {failed['exit_code']}: mine/0\n" in said
    assert all((sweep / str(job) / "metrics.json").is_file() for job in range(1, len(devices)))


@pytest.mark.parametrize("typed", [["resume_sweep=nowhere"], ["resume_sweep=.", "margin=0.3"]])
def test_what_cannot_be_resumed_is_one_line(tmp_path: Path, typed: list[str]) -> None:
    code, said = ended(start(tmp_path, *typed))
    assert code == 2
    assert said.startswith("error: resume_sweep: expected the folder of a sweep, with sweep.json in it, got ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_words_of_a_sweep_are_a_files_words(tmp_path: Path) -> None:
    plan = {"monitor": "val/map_at_r", "words": ["encoder=custom", "encoder._target_=os.system"], "jobs": None}
    (tmp_path / "sweep.json").write_text(json.dumps({**plan, "hydra_words": [], "options": []}))
    code, said = ended(start(tmp_path, "resume_sweep=."))
    assert code == 2
    assert "error: encoder._target_: 'os.system' comes from a file" in said
    assert (tmp_path / "sweep.json").is_file()


def test_a_resumed_sweep_that_is_rejected_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The jobs of ``sweep.json`` were changed by hand."""
    sweep = tmp_path / "mine"
    leave(sweep, grid("seed=1,2"), [0.5, 0.6])
    write_plan(sweep, plan(grid("seed=1,2"))._replace(words=["seed=3,4"]))
    assert command_in(tmp_path, monkeypatch)("resume_sweep=mine") == 2
    output = capsys.readouterr()
    assert output.err.endswith("error: resume_sweep: job 0 was run with seed=1, and the sweeper now asks for seed=3\n")
    assert "to run the missing" not in output.err and "jobs done" not in output.out


def test_control_characters_in_the_name_of_a_file_are_shown_as_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcdefghij":
        (tmp_path / "pics" / f"\x1b[31m{name}").mkdir(parents=True)
        (tmp_path / "pics" / f"\x1b[31m{name}" / "x\x1b[2J.png").write_text("no picture")
    assert command_in(tmp_path, monkeypatch)("datamodule=image_folder", "datamodule.root=pics") == 2
    told = capsys.readouterr().err
    assert "\\x1b[31ma" in told and "\x1b" not in told
