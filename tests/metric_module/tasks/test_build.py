"""Options of the command line reach module and trainer: callbacks, memory, chunks, schedules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.cli import check
from metric_module.miners import BatchHard, Scheduled
from metric_module.tasks import evaluate, train
from metric_module.tasks.build import build, check_reader
from tests.helpers.small import Tiny, evaluated
from tests.metric_module.tasks.test_train import rows, state

Compose = Callable[..., DictConfig]


def names(cfg: DictConfig) -> set[str]:
    return {type(callback).__name__ for callback in build(cfg).trainer.callbacks}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("trainer.enable_progress_bar=false", {"ProgressBar"}),
        ("trainer.enable_checkpointing=false", {"ModelCheckpoint"}),
        ("~logger", {"LearningRateMonitor"}),
    ],
)
def test_a_callback_that_serves_what_is_off_is_left_out(small: Compose, override: str, gone: set[str]) -> None:
    ours = {"ProgressBar", "ModelCheckpoint", "LearningRateMonitor", "LastValidation"}
    assert ours <= names(small())
    cfg = small(override)
    assert ours - names(cfg) == gone
    train(small(override, "test=false", "trainer.max_epochs=1", folder="trained"))


def test_switched_on_is_as_not_said(small: Compose) -> None:
    both = small("trainer.enable_progress_bar=true", "trainer.enable_checkpointing=true")
    assert names(both) == names(small())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["module.encode_chunk_size=0"], r"module.encode_chunk_size: expected an integer >= 1 or null, got 0"),
        (["memory.size=-1"], r"memory.size: expected an integer >= 0, got -1"),
        (["memory.size=8", "memory.warmup_steps=-2"], r"memory.warmup_steps: expected an integer >= 0, got -2"),
        (["memory.warmup_steps=5"], r"memory.warmup_steps=5 without a memory: give memory.size=8192, say"),
    ],
)
def test_values_out_of_range(small: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(small(*overrides))


def test_memory_and_chunks_reach_the_module(small: Compose) -> None:
    plain = build(small()).module
    assert plain.memory is None and plain.encode_chunk_size is None
    module = build(small("memory.size=30", "memory.warmup_steps=2", "module.encode_chunk_size=5")).module
    assert module.memory is not None
    assert module.memory.embeddings.shape == (30, 4)
    assert (module.memory.warmup_steps, module.encode_chunk_size) == (2, 5)


def test_learning_rates_by_part_reach_the_optimizer(small: Compose, tmp_path: Path) -> None:
    """A resumed run keeps them, because the checkpoint has the groups."""
    same = ["module.lr_scale={encoder.backbone:0.25,encoder.backbone.0:0.5}", "scheduler=one_cycle", "test=false"]
    train(small(*same))
    groups = state(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert {group["name"]: group["lr"] / groups[-1]["lr"] for group in groups} == pytest.approx(
        {"encoder.backbone": 0.25, "encoder.backbone.0": 0.5, "rest": 1}
    )
    assert "lr-AdamW/encoder.backbone.0" in rows(tmp_path / "run" / "metrics.csv")[0]
    train(small(*same, "ckpt_path=last", "trainer.max_epochs=2"))
    with pytest.raises(
        UserError, match=r"module.lr_scale: no submodule 'encoder.backbon' .* did you mean 'encoder.backbone"
    ):
        build(small("module.lr_scale={encoder.backbon:0.1}"))


@pytest.mark.filterwarnings("ignore:.*of the anchors of this epoch had no positive")  # a memory that is still empty
def test_an_anchor_without_a_positive_is_found_before_training(small: Compose, tmp_path: Path) -> None:
    one = "+datamodule.samples_per_class=1"
    told = (
        r"^datamodule.samples_per_class: expected at least 2, or a memory \(memory.size=8192, say\), got 1: an anchor "
        "has no positive$"
    )
    with pytest.raises(UserError, match=told):
        train(small(one))
    assert not list(tmp_path.iterdir())
    short = ("test=false", "trainer.max_steps=2")
    train(small(one, "memory.size=30", *short))
    figures = evaluate(small(one, f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", *short, folder="again"))
    assert figures["val/map_at_r"] > 0


def test_an_encoder_that_does_not_say_its_width(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Tiny.__init__

    def silent(self: Tiny, **arguments: Any) -> None:
        inner(self, **arguments)
        del self.embedding_dim

    cfg = small("memory.size=30")
    monkeypatch.setattr(Tiny, "__init__", silent)
    with pytest.raises(UserError, match=r"memory.embedding_dim: expected an integer >= 1, got None"):
        build(cfg)


def test_training_with_a_memory_and_a_schedule_continues_and_is_evaluated_without_them(
    small: Compose, tmp_path: Path
) -> None:
    """Weights, memory and miner of a resumed run equal those of an uninterrupted one."""
    same = ["memory.size=40", "memory.warmup_steps=3", "miner=scheduled", "miner.starts=[0,3,10]", "test=false"]
    same += ["callbacks=[default,margin_schedule]", "+callbacks.keep._target_=tests.helpers.small.KeepEachLast"]
    same += ["encoder.dropout=0.0", "trainer.check_val_every_n_epoch=1", "trainer.max_epochs=4"]
    figures = train(small(*same, folder="whole"))
    path = tmp_path / "whole" / "checkpoints" / "last-of-2.ckpt"
    train(small(*same, f"ckpt_path='{path}'", folder="rest"))
    whole, rest = (state(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "rest"))
    assert (whole["memory.seen"], whole["criterion.miner.step"], whole["criterion.miner.epoch"]) == (16 * 12, 16, 3)
    for name, value in whole.items():
        assert torch.equal(rest[name], value), name
    margins = {int(row["step"]): row["train/margin"] for row in rows(tmp_path / "whole" / "metrics.csv")}
    again = {int(row["step"]): row["train/margin"] for row in rows(tmp_path / "rest" / "metrics.csv")}
    for step in range(8, 16):
        assert float(margins[step]) == pytest.approx(0.4 - 0.2 * step / 16)
        assert again[step] == margins[step]
    best = f"ckpt_path='{tmp_path}/whole/checkpoints/best.ckpt'"
    assert evaluate(small(best, *same, folder="same")) == pytest.approx(evaluated(figures))
    other = evaluate(small(best, "test=false", folder="other"))
    assert other["val/map_at_r"] == pytest.approx(figures["val/map_at_r"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+miner.miners.first.depth=3"], r"miner.miners.first.depth: All has no such argument; allowed: none"),
        (
            ["miner.miners.third._target_=metric_module.miners.Hrad"],
            r"miner.miners.third._target_: 'metric_module.miners' has no 'Hrad'; did you mean 'Hard'\?",
        ),
        (["miner.every=batch"], r"miner.every: Scheduled expected 'step' or 'epoch', got 'batch'"),
        (["miner.starts=[0,10]"], r"scheduled: expected a start for each of 3 miners, got starts=\[0, 10\]"),
        (["miner@miner.miners.third=scheduled"], r"as miner 2, got Scheduled; schedules do not nest"),
    ],
)
def test_a_schedule_of_miners_that_does_not_fit(small: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(small("miner=scheduled", *overrides))


@pytest.mark.parametrize(
    ("overrides", "miners"),
    [
        ([], ["All", "Semihard", "Hard"]),
        (["miner@miner.miners.third=batch_hard"], ["All", "Semihard", "BatchHard"]),
        (["~miner@miner.miners.third", "miner.starts=[0,9]"], ["All", "Semihard"]),
        (["+miner@miner.miners.fourth=easy", "miner.starts=[0,1,2,3]"], ["All", "Semihard", "Hard", "Easy"]),
    ],
)
def test_a_schedule_of_miners_from_the_command_line(small: Compose, overrides: list[str], miners: list[str]) -> None:
    miner: Any = build(small("miner=scheduled", "miner.every=epoch", *overrides)).module.criterion.miner
    assert isinstance(miner, Scheduled)
    assert [type(part).__name__ for part in miner.miners] == miners
    assert miner.every == "epoch"
    assert not isinstance(miner.current, BatchHard)


@pytest.mark.parametrize(("monitor", "mode"), [("val/map_at_r", "max"), ("val/loss", "min"), ("val/eer", "min")])
def test_the_best_checkpoint_is_the_best(small: Compose, monitor: str, mode: str) -> None:
    def modes(*overrides: str) -> list[str]:
        savers = build(small(*overrides)).trainer.checkpoint_callbacks
        return [saver.mode for saver in savers if isinstance(saver, ModelCheckpoint)]

    assert modes(f"monitor={monitor}") == [mode]
    assert modes(f"monitor={monitor}", "callbacks.best.mode=min") == ["min"], "what is typed wins"


def test_a_strategy_that_reads_checkpoints_itself_is_refused() -> None:
    told = (
        r"^trainer.strategy: \w+ has a reader of checkpoints that can run code in them; give trainer=ddp, or trainer=f"
    )
    for strategy in (FSDPStrategy(), ModelParallelStrategy()):
        with pytest.raises(UserError, match=told):
            check_reader(strategy)
    check_reader(DDPStrategy())


def test_a_trainer_is_not_built_with_such_a_strategy(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SingleDeviceStrategy, "load_checkpoint", FSDPStrategy.load_checkpoint)
    with pytest.raises(UserError, match=r"^trainer.strategy: SingleDeviceStrategy has a reader of checkpoints"):
        build(small())
