"""Runs that are stopped and resumed from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from metric_module.cli.resume import with_resume
from metric_module.errors import UserError
from tests.helpers.command_line import MY_ENCODERS, Command, command_in
from tests.helpers.forked import Program

RUN = Path(__file__).resolve().parents[2] / "run.py"
SMALL = (
    "encoder=custom",
    "encoder._target_=my_encoders.Tiny",
    "datamodule.class_turns=0",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=3",
    "trainer.max_epochs=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "datamodule.eval_batch_size=60",
    "logger=csv",
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    return command_in(tmp_path, monkeypatch)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return loaded


@pytest.mark.integration
def test_a_run_that_was_told_to_stop_is_resumed(tmp_path: Path, command: Command) -> None:
    long = (*SMALL, "trainer.limit_train_batches=10")
    assert command(*long, "hydra.run.dir=whole") == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, str(RUN), *long, "hydra.run.dir=part", "callbacks.last.every_n_steps=1"]
    program = Program(words, tmp_path, environment)
    for _ in range(1200):
        if (tmp_path / "part/checkpoints/last.ckpt").exists() or program.poll() is not None:
            break
        time.sleep(0.05)
    program.send_signal(signal.SIGTERM)
    done = program.finish()
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"stopped by SIGTERM after step \d+, written to .*part/checkpoints/last.ckpt", done.stderr)
    assert not (tmp_path / "part/metrics.json").exists()
    assert command("resume=part", "trusted=[my_encoders]") == 0
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(one[name], other[name]) for name in one)
    figures, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("part", "whole"))
    assert figures == expected
    with (tmp_path / "part/metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))


def test_a_finished_run_is_read_again_and_lengthened(tmp_path: Path, command: Command) -> None:
    assert command(*SMALL, "trainer.max_epochs=1", "scheduler=constant", "hydra.run.dir=one") == 0
    assert command("resume=one", "trusted=[my_encoders]", "trainer.max_epochs=2") == 0
    assert torch.load(tmp_path / "one/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert command(*SMALL, "scheduler=constant", "hydra.run.dir=two") == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_last_without_a_checkpoint_starts_anew(
    tmp_path: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, "trainer.max_epochs=1", "hydra.run.dir=here", "ckpt_path=last")
    with pytest.warns(
        UserWarning, match="ckpt_path=last: no checkpoint in .*here/checkpoints yet, so training starts anew"
    ):
        assert command(*words) == 0
    assert command(*words) == 0
    assert torch.load(tmp_path / "here/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    capfd.readouterr()
    assert command(*SMALL, "task=evaluate", "ckpt_path=last", "hydra.run.dir=nothing") == 2
    assert "ckpt_path=last: no checkpoint in" in capfd.readouterr().err


def test_another_task_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("[task=search, query=a, gallery=b]")
    expected = f"^resume: expected the folder of a training, got one of task=search: {tmp_path}; run it again$"
    with pytest.raises(UserError, match=expected):
        with_resume([f"resume={tmp_path}"])


def test_options_are_typed_again_anywhere(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("[margin=0.3]")
    place = f"hydra.run.dir='{tmp_path}'"
    for words in (
        ["--config-dir", "my_conf", f"resume={tmp_path}", "seed=1", "~logger"],
        [f"resume={tmp_path}", "seed=1", "~logger", "--config-dir", "my_conf"],
    ):
        made = ["--config-dir", "my_conf", "margin=0.3", "ckpt_path=last", "seed=1", "~logger", place]
        assert with_resume(words) == made


def test_resume_says_what_it_wants(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("resume=nowhere") == 2
    assert "error: resume: expected the folder of a run, with .hydra/ in it, got nowhere" in capsys.readouterr().err
    assert command("-m", "resume=nowhere") == 2
    message = "error: resume: expected one run, got a sweep (-m); for a sweep give resume_sweep=<folder>"
    assert message in capsys.readouterr().err
    (tmp_path / "odd/.hydra").mkdir(parents=True)
    for text in ("{", "3"):
        (tmp_path / "odd/.hydra/overrides.yaml").write_text(text)
        assert command("resume=odd") == 2


def test_a_checkpoint_is_evaluated_with_what_it_was_trained_with(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, "+encoder.grow=2", "distance=cosine", "datamodule.split_seed=1", "trainer.max_epochs=1")
    assert command(*words, "hydra.run.dir=run", "margin=0.3") == 0
    limits = [word for word in SMALL if word.startswith(("trainer.", "logger"))]
    for path in ("run/checkpoints/best.ckpt", "run/checkpoints/last.ckpt"):
        again = path.replace("/", "_")
        evaluate = ("task=evaluate", f"ckpt_path={path}", *limits)
        assert command(*evaluate) == 2
        message = capsys.readouterr().err
        assert "error: encoder._target_: 'my_encoders.Tiny' comes from a file" in message
        assert command(*evaluate, "trusted=[my_encoders]", f"hydra.run.dir={again}") == 0
        figures, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in (again, "run"))
        trained = [expected.pop(stage) for stage in ("raw", "before")]  # like these two, measured by a training alone:
        assert all(trained) and expected["val"].pop("best_threshold") > 0 and expected["val"].pop("best_step") == 3
        assert figures == expected
    assert command(*evaluate, "trusted=[my_encoders]", "margin=0.9", "hydra.run.dir=wide") == 0
    assert json.loads((tmp_path / "wide/metrics.json").read_text())["val"]["loss"] > expected["val"]["loss"]
    assert command(*evaluate, "encoder=mlp") == 2
    assert "does not fit MLP" in capsys.readouterr().err
    assert command(*evaluate, "trusted=[my_encoders]", "datamodule.split_seed=0", "hydra.run.dir=split") == 0
    assert json.loads((tmp_path / "split/metrics.json").read_text()) != expected
