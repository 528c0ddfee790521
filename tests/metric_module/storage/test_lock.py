"""A folder is locked for one process and its children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metric_module.storage.lock import is_held, locked

ASK = "import sys; from pathlib import Path; from metric_module.storage.lock import is_held; print(is_held(Path('a')))"


def test_one_process_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    folder = Path("a")
    with locked(folder, wait=False):
        with pytest.raises(BlockingIOError), locked(folder, wait=False):
            pass
        assert is_held(folder) and not is_held(Path("b"))
        assert (
            subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout == "True\n"
        )
    assert not is_held(folder)
    with locked(folder, wait=False):
        pass


def test_the_lock_of_the_parent_is_remembered_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path / "outer", wait=False):
        with locked(tmp_path / "inner", wait=False):
            assert is_held(tmp_path / "inner")
        assert is_held(tmp_path / "outer")
