"""Sharded weights give the loss, gradient, checkpoints and weights of one process."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from metric_module import UserError
from metric_module.callbacks import EMA, FreezeBackbone
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.build import check_reader
from metric_module.training.sharded_strategy import ShardedStrategy, check_sharded
from tests.helpers import training
from tests.helpers.processes import on_trainers
from tests.helpers.sharded import Blocks, fit

SETTINGS: list[dict[str, Any]] = [
    {},
    {"plain": True, "gradient_clip_val": 0.05},
    {"accumulate_grad_batches": 2},
    {"optimizer": torch.optim.SGD, "module": {"lr_scale": {"encoder.head": 0.1}}},
]


def every(folder: Path) -> list[Any]:
    return [fit(folder / str(number), sharded=True, **dict(one)) for number, one in enumerate(SETTINGS)]


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=atol, msg=name)


@pytest.mark.integration
def test_loss_gradient_and_weights_of_one_process(tmp_path: Path) -> None:
    alone = [fit(tmp_path / f"alone{number}", sharded=False, **dict(one)) for number, one in enumerate(SETTINGS)]
    ranks = on_trainers(every, 2, tmp_path / "two", tmp_path)
    for rank, found in enumerate(ranks):
        for (state, seen), (expected, record) in zip(found, alone, strict=True):
            assert seen.shards["encoder.stem.weight"] == ((8, 6), (7, 6))[rank]
            assert seen.shards["encoder.blocks.1.weight"] == ((8, 15), (7, 15))[rank]
            assert "encoder.power" not in seen.shards and "criterion.distance.scale" not in seen.shards
            assert seen.losses == pytest.approx(record.losses, abs=1e-6) and record.losses[0] > 0.1
            assert all(float(value.norm()) > 0.01 for value in record.gradients[0].values())
            for step, (one, other) in enumerate(zip(seen.gradients, record.gradients, strict=True)):
                close(one, other, 1e-5 if step else 1e-6)  # later, the weights have been rounded differently
            close(state, expected)
    assert torch.equal(ranks[0][0][0]["encoder.head.weight"], ranks[1][0][0]["encoder.head.weight"])


class StopAt(Callback):
    """A callback that sends SIGTERM to one process, within the second epoch."""

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == 5 and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stop(folder: Path, sharded: bool) -> None:
    with pytest.raises(SystemExit) as ended:
        fit(folder, sharded, callbacks=[StopAt()])
    assert ended.value.code == 128 + signal.SIGTERM


def stop_and_continue(folder: Path) -> tuple[Any, Any]:
    whole = fit(folder / "whole", sharded=True)[0]
    stop(folder / "rest", sharded=True)
    return whole, fit(folder / "rest", sharded=True, ckpt_path=folder / "rest/checkpoints/last.ckpt")[0]


@pytest.mark.integration
def test_a_checkpoint_is_that_of_one_process_and_continues_bit_for_bit(tmp_path: Path) -> None:
    for whole, rest in on_trainers(stop_and_continue, 2, tmp_path / "two", tmp_path):
        assert all(torch.equal(rest[name], value) for name, value in whole.items())
    path = tmp_path / "whole/checkpoints/last.ckpt"
    (tmp_path / "alone").mkdir()
    expected, _ = fit(tmp_path / "alone", sharded=False)
    sharded, plain = (load_checkpoint(one) for one in (path, tmp_path / "alone/checkpoints/last.ckpt"))
    close(sharded["state_dict"], plain["state_dict"], 1e-5)
    (one,), (other,) = sharded["optimizer_states"], plain["optimizer_states"]
    assert one["param_groups"] == other["param_groups"] and one["state"].keys() == other["state"].keys()
    for number, values in one["state"].items():
        close(values, other["state"][number])
    stop(tmp_path / "half", sharded=False)
    half = tmp_path / "half/checkpoints/last.ckpt"
    for found, _ in on_trainers(fit_from, 2, tmp_path / "from", tmp_path / "other", half):
        close(found, expected, 1e-5)
    close(
        fit(tmp_path / "back", sharded=False, ckpt_path=path, max_epochs=3)[0],
        fit(tmp_path, False, max_epochs=3)[0],
        1e-5,
    )


def fit_from(folder: Path, path: Path) -> Any:
    return fit(folder, sharded=True, ckpt_path=path)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as told:
        fit(folder, sharded=True, gradient_clip_val=0.1)
    return str(told.value)


@pytest.mark.integration
def test_the_strategy_checks_what_it_trains(tmp_path: Path) -> None:
    told = "trainer.gradient_clip_val: trainer=fsdp cannot do this (encoder.power is not sharded); "
    for found in on_trainers(refused, 2, tmp_path / "two", tmp_path):
        assert found == f"{told}leave it out, or give trainer=ddp"


def given(module: Any, value: float | None = None, callbacks: Sequence[Callback] = ()) -> tuple[Any, Any]:
    return module, SimpleNamespace(strategy=ShardedStrategy(), gradient_clip_val=value, callbacks=callbacks)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (given(training.module()), r"MLP.body.1: trainer=fsdp cannot do this (a BatchNorm in training mode: each "),
        (given(training.module(Blocks()), 0.1), "trainer.gradient_clip_val: trainer=fsdp cannot do this (encoder.po"),
        (given(training.module(Blocks()), None, [EMA()]), "EMA: trainer=fsdp cannot do this (the average would be "),
        (
            given(training.module(Blocks(), encode_chunk_size=4)),
            "module.encode_chunk_size: trainer=fsdp cannot do this (every chunk would gather all weights again); "
            "leave it out, or give trainer=ddp",
        ),
        (given(training.module(Blocks())), None),
        (given(training.module(Blocks(False)), 0.1), None),
    ],
)
def test_what_cannot_be_sharded_is_refused(parts: tuple[Any, Any], message: str | None) -> None:
    module, trainer = parts
    if message is not None:
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            check_sharded(module, trainer)
        trainer.strategy = None
    check_sharded(module, trainer)


def test_freezing_later_is_refused() -> None:
    trainer: Any = SimpleNamespace(strategy=ShardedStrategy())
    told = r"^callbacks.freeze_backbone: trainer=fsdp cannot do this \(what has a gradient is fixed once weights are"
    with pytest.raises(UserError, match=told):
        FreezeBackbone().setup(trainer, training.module(), "fit")


def test_it_reads_checkpoints_by_the_plugin() -> None:
    check_reader(ShardedStrategy())
