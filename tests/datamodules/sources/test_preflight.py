"""Tests of the cache of files that were read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from datamodules.sources.paths import Paths
from datamodules.sources.preflight import inspect_images


def test_a_failure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason such as missing permission can disappear without changing size or time."""
    path, cache = tmp_path / "a.png", tmp_path / "cache.sqlite"
    Image.new("RGB", (4, 4)).save(path)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert "Permission denied" in inspect_images(Paths([str(path)]), cache)[0].reason
    (state,) = inspect_images(Paths([str(path)]), cache)
    assert state.reason == "" and state.digest


def test_equal_paths_of_two_folders_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the content, but keep size and time of change."""
    cache, states = tmp_path / "cache.sqlite", []
    for name, colour in (("one", 10), ("two", 20)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Image.new("L", (4, 4), colour).save("a.bmp")
        os.utime("a.bmp", (1, 1))
        states += inspect_images(Paths(["a.bmp"]), cache)
    assert states[0].digest != states[1].digest
    (tmp_path / "two/a.bmp").unlink()
    (gone,) = inspect_images(Paths(["a.bmp"]), cache)
    assert gone.reason == "[Errno 2] No such file or directory"
