"""The recipe that tells instances apart, from composing scenes to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from metric_module.config.schema import register
from metric_module.tasks import train
from tests.helpers.command_line import read_images_once
from tests.metric_module.conftest import CONF


def test_the_recipe_trains_measures_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datamodules.emoji.scenes_datamodule.read_images", read_images_once)
    register()
    given = ["trainer.max_steps=2", "trainer.accelerator=cpu", "datamodule.scenes=[20,3,2]", "datamodule.grid=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["experiment=instances", *given, f"output_dir='{tmp_path}'"])
    figures = train(cfg)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["val"].keys() == {"loss", "ari", "groups", "best_threshold", "best_step"}
    assert written["test"].keys() == {"loss", "ari", "groups"}
    assert -0.1 < figures["test/ari"] < 1 and written["val"]["groups"] == 3 and written["test"]["groups"] == 2
    kept = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["threshold"]
    assert kept == pytest.approx(written["val"]["best_threshold"])
    assert "warning" not in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "(instance " in page and "data:image/" in page
