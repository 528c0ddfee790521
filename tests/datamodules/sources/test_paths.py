"""Tests of many paths in two arrays, and of lists in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.sources.paths import Paths, read_lines
from metric_module.errors import UserError


def test_paths_are_two_arrays() -> None:
    names = ["a/b.png", "", "ü/é.jpg", "x"]
    paths = Paths(names)
    assert [paths[row] for row in range(len(paths))] == names
    assert len(Paths([])) == 0


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no file .*list.txt$"):
        read_lines(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"^cannot read .*list.txt \('utf-8'"):
        read_lines(tmp_path / "list.txt")
