"""Sharded weights give the loss, gradient, checkpoints and weights of one process."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch import Callback
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from metric_module import UserError
from metric_module.callbacks import EMA, FreezeBackbone
from metric_module.encoders.chunks import encode_in_chunks
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.build import check_reader
from metric_module.training.sharding import ShardedStrategy, check_sharded, shard_encoder
from tests.helpers import training
from tests.helpers.processes import on_ranks, on_trainers
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
            assert seen.losses == pytest.approx(record.losses, abs=1e-6) and record.losses[-1] > 0.01
            for one, other in zip(seen.gradients, record.gradients, strict=True):
                close(one, other)
                assert float(torch.cat([value.flatten() for value in other.values()]).norm()) > 1e-3
            close(state, expected, 1e-5)
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


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"module": {"encode_chunk_size": 4}}, "module.encode_chunk_size: trainer=fsdp cannot do this (every chunk"),
    ({"gradient_clip_val": 0.1}, "trainer.gradient_clip_val: trainer=fsdp cannot do this (encoder.power is not"),
    ({"callbacks": [EMA()]}, "callbacks.ema: trainer=fsdp cannot do this (the average would be of whole weights"),
]


def refused(folder: Path) -> list[str]:
    found = []
    for settings, _ in REFUSED:
        try:
            fit(folder, sharded=True, **dict(settings))
        except UserError as error:
            found.append(str(error))
    return found


@pytest.mark.integration
def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    for found in on_trainers(refused, 2, tmp_path / "two", tmp_path):
        for message, (_, expected) in zip(found, REFUSED, strict=True):
            assert message.startswith(expected) and message.endswith("); leave it out, or give trainer=ddp")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (training.module(), r"^MLP.body.1: trainer=fsdp cannot do this \(a BatchNorm in training mode: each process "),
        (training.module(Blocks(False)), None),
    ],
)
def test_batch_norm_is_refused(module: Any, message: str | None) -> None:
    trainer: Any = SimpleNamespace(strategy=ShardedStrategy(), gradient_clip_val=None)
    if message is None:
        check_sharded(module, trainer)
        return
    with pytest.raises(UserError, match=message):
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


def collectives(least: int) -> dict[tuple[bool, int | None], tuple[int, int]]:
    """Count gathers and reductions of a step, by whether weights are freed after the forward pass, and chunk size."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Any:
        call = getattr(dist, name)

        def count(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return call(*arguments, **options)

        return count

    names = ("all_gather_single", "reduce_scatter_single")
    for name in names:
        setattr(dist, name, counted(name))
    found = {}
    for frees, size in itertools.product((True, False), (None, 5)):
        encoder = Blocks(False)
        shard_encoder(encoder, init_device_mesh("cpu", (2,)), least)
        for part in encoder.modules():
            if isinstance(part, FSDPModule):
                part.set_reshard_after_forward(frees, recurse=False)
        counts.clear()
        inputs = torch.randn(20, 6)
        embeddings = encoder(inputs) if size is None else encode_in_chunks(encoder, inputs, size)
        embeddings.sum().backward()
        found[frees, size] = (counts[names[0]], counts[names[1]])
    return found


@pytest.mark.integration
def test_why_chunks_are_refused(tmp_path: Path) -> None:
    """Three blocks, and the rest: four chunks gather their weights again, even if these are kept between the chunks."""
    for found in on_ranks(collectives, 2, tmp_path, 1):
        assert found[True, None] == (2 * 4, 4), "gathered for either direction, reduced once"
        assert found[True, 5][0] > 3 * found[True, None][0]
        assert found[False, None] == (4, 4)
        assert found[False, 5][0] > 3 * found[False, None][0]
