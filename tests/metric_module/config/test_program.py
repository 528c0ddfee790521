"""Hints show the command that the user typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metric_module.config.program import PROGRAM, command, typed_command
from metric_module.sweeps.settings import resume_command


@pytest.mark.parametrize(
    ("started", "called", "expected"),
    [
        (["python", "run.py"], "run.py", "python run.py"),
        ([".venv/bin/python", "/my path/run.py"], "/my path/run.py", ".venv/bin/python '/my path/run.py'"),
        (["python", "-m", "metric_module"], "/site/metric_module/__main__.py", "python -m metric_module"),
        (["python3", "-X", "dev", "run.py"], "run.py", "python3 -X dev run.py"),
        (["/env/bin/python3", "/env/bin/lightning-triplets"], "/env/bin/lightning-triplets", "lightning-triplets"),
        (
            ["/env/bin/python3", "env/bin/lightning-triplets"],
            "env/bin/lightning-triplets",
            "env/bin/lightning-triplets",
        ),
    ],
)
def test_what_was_typed(started: list[str], called: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/env/bin/{name}")
    for words in ([], ["margin=0.1", "seed=1"]):
        monkeypatch.setattr(sys, "orig_argv", [*started, *words])
        monkeypatch.setattr(sys, "argv", [called, *words])
        assert typed_command() == expected


def test_a_script_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["/my env/bin/lightning-triplets", "seed=1"])
    assert typed_command() == "'/my env/bin/lightning-triplets'"


def test_a_hint_in_a_child_process_and_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRAM, raising=False)
    assert command() == "lightning-triplets"
    monkeypatch.setenv(PROGRAM, "python '/my path/run.py'")
    assert resume_command(Path("sweeps/a b")) == "python '/my path/run.py' 'resume_sweep=sweeps/a b'"
