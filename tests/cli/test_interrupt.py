"""Ctrl-C before training: one line, exit code 130, and nothing left."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from metric_module.cli.interrupt import interruptible
from tests.helpers.command_line import Command, command_in

ROOT = Path(__file__).resolve().parents[2]
IMPORTING = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "hydra":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.argv = ["run.py"]
exec(open("{run}").read())
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(tmp_path, monkeypatch)


def press(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "place",
    [
        "metric_module.cli.entry.check_words",  # while the configuration is composed
        "metric_module.config.checks._check_margin",
        "metric_module.tasks.build.seed_everything",
        "metric_module.module.TripletModule.on_fit_start",  # inside Lightning
    ],
)
def test_before_training(
    place: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(place, press)
    quick = ("encoder=mlp", "encoder.hidden=[8]", "trainer.accelerator=cpu", "trainer.max_steps=1", "report=false")
    assert command(*quick, "hydra.run.dir=new/run") == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("INFO", "WARNING"))]
    assert lines == ["stopped by SIGINT"]
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_another_error_hides(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hide(*_: Any) -> None:
        try:
            press()
        except KeyboardInterrupt:
            logging.getLogger().info("the first line of run.log")
            raise ValueError("something else") from None

    monkeypatch.setattr("metric_module.config.checks._check_margin", hide)
    assert command("hydra.run.dir=new") == 130
    logging.getLogger().info("a line after the folder was removed")
    assert capsys.readouterr().err == "stopped by SIGINT\n"
    assert not list(tmp_path.iterdir())


def test_while_the_program_is_imported(tmp_path: Path) -> None:
    code = IMPORTING.format(run=ROOT / "run.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "stopped by SIGINT\n")


def test_a_program_that_ignores_it_still_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a command in the background
    try:
        with interruptible():
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_process_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as stop, interruptible():
        press()
    assert stop.value.code == 130
    assert capsys.readouterr().err == ""


def test_other_exceptions_and_threads_are_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), interruptible():
        _ = 1 / 0
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
