"""Files appear as a whole, and what a killed process left is removed by exact name."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_module.errors import UserError
from metric_module.storage.atomic import remove_parts, write_whole


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^metrics.json: cannot write .*file/metrics.json \((Not a d|File e)"):
        write_whole(tmp_path / "file" / "metrics.json", "{}")


def test_the_parts_of_killed_processes_are_removed_by_exact_name(tmp_path: Path) -> None:
    parts = ("checkpoints/.last.ckpt.123", "checkpoints/.best.ckpt.9", ".config.yaml.77", ".metrics.csv.1")
    others = ("checkpoints/last.ckpt", ".last.ckpt.bak", ".notes.txt.12", "last.ckpt.123", "more/.last.ckpt.123")
    for name in (*parts, *others):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_parts(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(others)
    remove_parts(tmp_path / "nowhere")
