"""Tests of addresses on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command_line import command_in


@pytest.mark.parametrize("words", [["datamodule=image_folder"], ["-m", "datamodule=image_folder", "seed=0,1"]])
def test_a_password_is_refused_and_written_nowhere(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command_in(tmp_path, monkeypatch)(*words, "datamodule.root=https://me:hunter2@host/a") == 2
    output = capfd.readouterr()
    assert output.err.startswith(
        "error: datamodule.root: expected an address without user name and password, which config.yaml"
    )
    assert len(output.err.splitlines()) == 1 and "hunter2" not in output.out + output.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
