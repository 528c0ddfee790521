"""Folder of a run: claimed by one run, and as it was before if the run did not start."""

from __future__ import annotations

import errno
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from metric_module.errors import UserError
from metric_module.storage.lock import locked
from metric_module.storage.run_folder import claim, note_missing, remove_empty


class StopError(Exception):
    """The end of a run that fails."""


def run(folder: Path, *writes: str, continues: bool = False) -> None:
    """Write files in the folder of a run, as an experiment would, then fail."""
    with claim(folder, continues):
        for name in writes:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("new")
        raise StopError


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_did_not_start_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("old")
    with pytest.raises(StopError):
        run(tmp_path, "run.log", "tensorboard/events", "mine/more")
    assert names(tmp_path) == {"mine/notes.txt"}
    assert not (tmp_path / "tensorboard").exists()


def test_a_run_that_started_leaves_everything(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(tmp_path, "config.yaml", "metrics.csv")
    assert names(tmp_path) == {"config.yaml", "metrics.csv"}
    with pytest.raises(StopError):
        run(tmp_path, "more", continues=True)
    assert names(tmp_path) == {"config.yaml", "metrics.csv"}, "the continued run had not started"


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("old")
    message = rf"^hydra.run.dir: {tmp_path} holds a run; to continue its training give resume={tmp_path}, for anything"
    with pytest.raises(UserError, match=message):
        run(tmp_path, "config.yaml")
    assert (tmp_path / "config.yaml").read_text() == "old"


def test_a_second_process_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(UserError, match=r"another process works in .*; wait for its end, or give another") as error:
            run(tmp_path / "run", "metrics.json")
        refused.append(str(error.value))

    note_missing(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with claim(tmp_path / "run", continues=False):
        (tmp_path / "run" / "first").touch()
        thread = threading.Thread(target=second)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("LIGHTNING_TRIPLETS_HOLDS")  # an independent process does not inherit it
            thread.start()
            thread.join()
            patch.setenv("LIGHTNING_TRIPLETS_HOLDS", str(tmp_path / "run"))
    assert len(refused) == 1
    assert names(tmp_path / "run") == {"first"}
    remove_empty()


def test_processes_of_the_same_run_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("of the first process")
    with locked(tmp_path, wait=False), pytest.raises(StopError):
        run(tmp_path)  # a job whose sweep holds the lock
    with locked(tmp_path, wait=False), pytest.MonkeyPatch.context() as patch:
        patch.delenv("LIGHTNING_TRIPLETS_HOLDS")
        patch.setenv("RANK", "1")
        with pytest.raises(StopError):
            run(tmp_path, "shard")
        patch.setenv("LIGHTNING_TRIPLETS_HOLDS", str(tmp_path))
    assert names(tmp_path) == {"config.yaml", "shard"}


def test_systems_and_file_systems_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StopError):
        run(tmp_path)
    warning = f"warning: cannot lock {tmp_path} (No locks available); start no second run there\n"
    assert capsys.readouterr().err == warning
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(StopError):
        run(tmp_path)
    assert capsys.readouterr().err == ""


def test_only_folders_that_were_missing_are_removed(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "old/new/er", "other/full"):
        note_missing(tmp_path / name)
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "other/full/file").touch()
    remove_empty()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "old", "other"]
