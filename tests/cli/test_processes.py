"""Runs that a launcher starts on several processes."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from metric_module import UserError
from metric_module.cli.processes import check_named, show_dead_children
from tests.helpers.command_line import Command, command_in


@pytest.mark.parametrize(
    ("variables", "processes"),
    [({"WORLD_SIZE": "2", "RANK": "0"}, 2), ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 4)],
    ids=["torchrun", "srun"],
)
def test_the_folder_needs_a_name(variables: dict[str, str], processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = f"hydra.run.dir: each of {processes} processes of torchrun or srun would name the folder by its own clock; "
    with pytest.raises(UserError, match=re.escape(told)):
        check_named(["hydra.job.name=a"])
    check_named(["hydra.run.dir=mine"])
    check_named(["++hydra.run.dir=mine"])
    monkeypatch.setenv([*variables][1], "1")
    with pytest.raises(SystemExit) as stop:
        check_named([])
    assert stop.value.code == 2, "only the first process says so"


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"SLURM_NTASKS": "4"}])
def test_a_run_of_one_process_has_its_own_name(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a batch script, but without srun, there is one process."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_named([])


def test_it_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command: Command = command_in(tmp_path, monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert command("ckpt_path=nowhere.ckpt") == 2  # refused by the task, if it started
    assert capsys.readouterr().err.startswith("error: hydra.run.dir: each of 2 processes of torchrun or srun")
    assert not list(tmp_path.iterdir())


def test_what_lightning_says_of_a_dead_child_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    show_dead_children()
    observer = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    with caplog.at_level(logging.INFO):
        observer.info("Child process with PID 7 terminated with code -9.")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    for one in observer.filters[:]:
        observer.removeFilter(one)
