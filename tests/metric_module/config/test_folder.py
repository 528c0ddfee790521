"""The yaml files are found in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_module.config import conf_folder

ROOT = Path(__file__).resolve().parents[3]


def test_beside_the_package_or_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert conf_folder() == ROOT / "conf"
    monkeypatch.setattr("metric_module.config.folder._PACKAGE", tmp_path / "metric_module")
    assert conf_folder() == tmp_path / "conf"
    (tmp_path / "metric_module/conf").mkdir(parents=True)
    assert conf_folder() == tmp_path / "metric_module/conf"


def test_a_checkout_holds_yaml_only() -> None:
    files = [path for path in (ROOT / "conf").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 80
    assert {path.suffix for path in files} == {".yaml"}
