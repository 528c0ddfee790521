"""What is remembered of files that were read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import datamodules
from datamodules.sources.paths import Paths
from datamodules.sources.preflight import inspect_images
from metric_module.errors import UserError


def test_a_failure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when who may read a file changes, and neither its size nor its time."""
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
    """Of the same size and time."""
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


@pytest.mark.parametrize(
    ("name", "setting", "more"),
    [
        ("ArraysDataModule", "path", {}),
        ("CaptionsDataModule", "path", {}),
        ("GlyphDataModule", "fonts", {}),
        ("HuggingFaceDataModule", "path", {"input": "image"}),
        ("IDXDataModule", "root", {}),
        ("ImageFolderDataModule", "root", {}),
        ("InteractionsDataModule", "path", {}),
        ("ManifestDataModule", "root", {"table": "t.csv", "image": "image"}),
        ("ManifestDataModule", "table", {"image": "image"}),
        ("MultiLabelDataModule", "path", {}),
        ("PublishedDataModule", "root", {"read": None}),
    ],
)
def test_an_empty_path_is_not_the_current_folder(name: str, setting: str, more: dict[str, Any]) -> None:
    for path in ("", " "):
        with pytest.raises(UserError, match=f"^datamodule.{setting}: expected a path, got {path!r}$"):
            getattr(datamodules, name)(**{setting: path}, **more)
