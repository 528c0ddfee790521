"""encoder.safetensors: written by a run, and the start of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from metric_module import UserError
from metric_module.cli import check
from metric_module.tasks import census, evaluate, train
from metric_module.tasks.build import build
from tests.helpers.small import Tiny, evaluated

Compose = Callable[..., DictConfig]
BEST_FIRST = ("monitor=epoch", "callbacks.best.mode=min", "trainer.check_val_every_n_epoch=1", "optimizer.lr=0.2")


def weights(path: Path, kind: str = "state_dict") -> dict[str, Any]:
    state = torch.load(path, weights_only=True)[kind]
    return {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("callbacks", ["default", "[default,ema]"])
def test_a_run_writes_its_best_encoder(small: Compose, tmp_path: Path, callbacks: str) -> None:
    """The first epoch counts as the best. With an average of the weights, the average is written."""
    figures = train(small(*BEST_FIRST, "trainer.max_epochs=3", f"callbacks={callbacks}"))
    folder = tmp_path / "run"
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    found = load_file(folder / "encoder.safetensors")
    assert same(found, weights(best)) and not same(found, weights(last))
    if "ema" in callbacks:
        assert not same(found, weights(best, "current_model_state"))
    again = evaluate(small(f"module.encoder_weights='{folder}/encoder.safetensors'", "task=evaluate", folder="again"))
    assert again == pytest.approx(evaluated(figures))


def test_without_checkpoints_there_is_none(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.fast_dev_run=true", folder="dry"))
    train(small("trainer.enable_checkpointing=false", "trainer.max_epochs=1", folder="none"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_encoder_that_cannot_be_written_is_told(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "get_extra_state", lambda self: "a word", raising=False)
    monkeypatch.setattr(Tiny, "set_extra_state", lambda self, state: None, raising=False)
    cfg = small("trainer.limit_val_batches=0", "trainer.max_epochs=1")
    with pytest.warns(UserWarning, match=r"encoder.safetensors: cannot write .* _extra_state is a str"):
        figures = train(cfg)
    assert "test/map_at_r" in figures and (tmp_path / "run" / "metrics.json").is_file()


def test_a_run_starts_from_it(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.max_epochs=1", "optimizer.lr=0.2", "seed=3", folder="first"))
    path = tmp_path / "first" / "encoder.safetensors"
    start = f"module.encoder_weights='{path}'"
    assert same(build(small(start)).module.encoder.state_dict(), load_file(path))
    assert not same(build(small()).module.encoder.state_dict(), load_file(path))
    same_data = ("task.split=val", "task.anchors=null")
    shares = census(small("task=census", start, *same_data, folder="a"))
    of_checkpoint = f"ckpt_path='{tmp_path}/first/checkpoints/best.ckpt'"
    assert shares == census(small("task=census", of_checkpoint, *same_data, folder="b"))
    assert shares != census(small("task=census", *same_data, folder="c"))
    assert str(path) in (tmp_path / "a" / "census.html").read_text()


@pytest.mark.filterwarnings("ignore:checkpoint. .*best.ckpt is gone")
def test_a_resume_goes_on_from_its_checkpoint(small: Compose, tmp_path: Path) -> None:
    """A resumed run does not need the file that training started from."""
    train(small("trainer.max_epochs=1", folder="first"))
    path = tmp_path / "first" / "encoder.safetensors"
    words = [f"module.encoder_weights='{path}'", "+callbacks.keep._target_=tests.helpers.small.KeepEachLast"]
    words += ["trainer.max_epochs=2", "encoder.dropout=0.0", "test=false"]
    train(small(*words, folder="whole"))
    last = tmp_path / "rest" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    (tmp_path / "whole" / "checkpoints" / "last-of-1.ckpt").rename(last)
    path.unlink()
    train(small(*words, "ckpt_path=last", folder="rest"))
    assert same(weights(last), weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"))


def test_mistakes(small: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"module.encoder_weights: no such file: nowhere.safetensors"):
        check(small("module.encoder_weights=nowhere.safetensors"))
    (tmp_path / "some.ckpt").touch()
    both = ("module.encoder_weights=a.safetensors", f"ckpt_path='{tmp_path}/some.ckpt'")
    with pytest.raises(
        UserError, match=r"ckpt_path=.*some.ckpt has an encoder of its own: leave out module.encoder_we"
    ):
        check(small(*both))
    with pytest.raises(UserError, match=r"module.encoder_weights: .*some.ckpt is not a safetensors file"):
        build(small(f"module.encoder_weights='{tmp_path}/some.ckpt'"))
    with pytest.raises(UserError, match=r"ckpt_path: expected a checkpoint, got none"):
        check(small("task=evaluate"))
    train(small("trainer.max_epochs=1", folder="first"))
    path = f"module.encoder_weights='{tmp_path}/first/encoder.safetensors'"
    with pytest.raises(UserError, match=r"does not fit Tiny, first at backbone.0.weight: expected shape \[9, 6\]"):
        train(small(path, "encoder.width=9"))
