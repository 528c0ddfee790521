"""Start of a training: the record is written then, and paths of a moved run are corrected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.tasks import train
from metric_module.tasks.run_start import RunStart, _moved

Compose = Callable[..., DictConfig]


def test_paths_in_the_old_folder_are_those_in_the_new_one() -> None:
    state = {
        "dirpath": "/a/checkpoints",
        "best_model_path": "/a/checkpoints/best.ckpt",
        "best_k_models": {"/a/checkpoints/best.ckpt": 0.5, "/a/checkpoints2/x.ckpt": 0.4},
        "kth_best_model_path": "/a/checkpoints/sub/best.ckpt",
        "last_model_path": "",
        "best_model_score": 0.5,
    }
    assert _moved(state, "/b/c") == {
        "dirpath": "/b/c",
        "best_model_path": "/b/c/best.ckpt",
        "best_k_models": {"/b/c/best.ckpt": 0.5, "/a/checkpoints2/x.ckpt": 0.4},
        "kth_best_model_path": "/b/c/sub/best.ckpt",
        "last_model_path": "",
        "best_model_score": 0.5,
    }


def test_a_best_checkpoint_that_is_gone_does_not_count(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.max_epochs=1", "report=false", "test=false"))
    best = tmp_path / "run/checkpoints/best.ckpt"
    best.unlink()
    with pytest.warns(UserWarning, match=r"checkpoint: .*best.ckpt is gone, so the best score so far does not count"):
        train(small("trainer.max_epochs=2", "report=false", "test=false", "ckpt_path=last"))
    assert best.is_file()


def test_the_record_is_written_when_training_starts(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("trainer.max_epochs=1", "report=false", "test=false")
    with pytest.raises(UserError, match=r"module\.lr_scale"):
        train(small(*short, "module.lr_scale={nothing: 2}"))
    assert not (tmp_path / "run/config.yaml").exists()

    def stop(*_: Any) -> None:
        assert OmegaConf.load(tmp_path / "run/config.yaml").margin == 0.4
        raise InterruptedError

    monkeypatch.setattr("metric_module.module.TripletModule.training_step", stop)
    with pytest.raises(InterruptedError):
        train(small(*short))


def test_a_folder_that_is_removed_while_training(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are shown, and written to the folder that is made again."""
    record = RunStart.record

    def remove(start: RunStart, trainer: Trainer) -> None:
        if trainer.global_step:
            shutil.rmtree(tmp_path / "run")
        record(start, trainer)

    monkeypatch.setattr(RunStart, "record", remove)
    with pytest.warns(UserWarning, match=r"checkpoint: .*best.ckpt is gone, so the figures are those of the last"):
        figures = train(small("trainer.max_epochs=1", "report=false", "test=false", "logger=default"))
    assert 0 < figures["val/map_at_r"] < 1
    assert (tmp_path / "run/metrics.json").is_file() and "map_at_r" in capsys.readouterr().out


def test_a_training_at_its_end_is_recorded_too(small: Compose, tmp_path: Path) -> None:
    short = ("trainer.max_epochs=1", "report=false", "test=false")
    train(small(*short))
    train(small(*short, "ckpt_path=last", "margin=0.2"))
    assert OmegaConf.load(tmp_path / "run/config.yaml").margin == 0.2
