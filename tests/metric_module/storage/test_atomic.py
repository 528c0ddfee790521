"""Files appear as a whole, and what a killed process left is removed by exact name."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_module.errors import UserError
from metric_module.storage.atomic import beside, remove_parts, write_whole


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^metrics.json: cannot write .*file/metrics.json \((Not a d|File e)"):
        write_whole(tmp_path / "file" / "metrics.json", "{}")


def test_the_parts_of_killed_processes_are_removed_by_exact_name(tmp_path: Path) -> None:
    parts = (
        "checkpoints/.last.ckpt.123",
        "checkpoints/.best.ckpt.9",
        ".config.yaml.77",
        ".metrics.csv.1",
        ".encoder.onnx.5",
    )
    others = ("checkpoints/last.ckpt", ".last.ckpt.bak", ".notes.txt.12", "last.ckpt.123", "more/.last.ckpt.123")
    for name in (*parts, *others):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_parts(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(others)
    remove_parts(tmp_path / "nowhere")


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    def write(content: str) -> None:
        with beside(tmp_path / "run" / "model") as part:
            (part / "inside").mkdir(parents=True)
            (part / "inside" / "file").write_text(content)
            assert not (tmp_path / "run" / "model").exists()
            if content == "torn":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("torn")
    assert not [*(tmp_path / "run").iterdir()]
    write("whole")
    assert (tmp_path / "run/model/inside/file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").touch()
    (tmp_path / "run/.model.12/inside").mkdir(parents=True)
    (tmp_path / "run/.model.13").symlink_to(tmp_path / "elsewhere")
    remove_parts(tmp_path / "run")
    assert not (tmp_path / "run/.model.12").exists() and (tmp_path / "elsewhere/kept").exists()
