"""Killed anywhere, training continues as if nothing had happened."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from metric_module import TripletModule, UserError
from metric_module.callbacks import LastCheckpoint
from tests.clouds import Record, run, same_bits

STEPS = 8


class KilledError(Exception):
    pass


class Kill(Callback):
    """Breaks off in the middle of a step, with no word to anyone."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step >= self.step:
            raise KilledError


class Send(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: int, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@cache
def unbroken(workers: int = 0) -> tuple[TripletModule, Record]:
    return run(Path(mkdtemp()), workers=workers)


def check(module: TripletModule, record: Record) -> None:
    whole, expected = unbroken()
    assert record.ids == {step: expected.ids[step] for step in record.ids}
    assert record.losses == {step: expected.losses[step] for step in record.losses}
    assert record.validated == [step for step in expected.validated if step >= min(record.losses, default=STEPS)]
    assert same_bits(module, whole)


def test_the_run_has_what_a_resume_must_bring_back() -> None:
    module, record = unbroken()
    assert list(record.ids) == list(range(STEPS))
    assert record.validated == [4, 8]
    assert record.started == [0, 1]
    assert module.memory is not None
    assert module.memory.seen == 8 * STEPS
    other, _ = run(Path(mkdtemp()))
    assert same_bits(module, other), "two runs are one"


@pytest.mark.parametrize("step", range(1, STEPS))
def test_killed_at_any_step(step: int, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Kill(step))
    torch.rand(step)
    module, record = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"))
    assert min(record.ids) == step
    assert record.started == ([] if step > 4 else [1])
    check(module, record)


def test_killed_three_times_in_an_epoch(tmp_path: Path) -> None:
    path = None
    for step in (1, 2, 3, 6):
        with pytest.raises(KilledError):
            run(tmp_path, Kill(step), ckpt_path=path)
        path = str(tmp_path / "checkpoints/last.ckpt")
    check(*run(tmp_path, ckpt_path=path))


def test_workers_that_read_ahead(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Kill(6), workers=2)
    check(*run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"), workers=2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_after_the_step_under_way(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, Send(2, number))
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) == before, "handed back"
    module, record = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"))
    assert min(record.ids) == 3
    check(module, record)


def test_signals_are_handed_back_after_training(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    with pytest.raises(KilledError):
        run(tmp_path, Kill(2))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_before_a_validation_waits_for_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, Send(3, signal.SIGTERM))
    module, record = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"))
    assert min(record.ids) == 4
    check(module, record)


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, Send(2, signal.SIGINT, times=2))
    assert stop.value.code == 1, "Lightning's own way out"
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_accumulated_gradients_are_not_cut(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": 2}
    whole, expected = run(tmp_path / "whole", trainer_settings=settings)
    with pytest.raises(SystemExit):
        run(tmp_path, Send(1, signal.SIGTERM), trainer_settings=settings)
    module, record = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"), trainer_settings=settings)
    assert same_bits(module, whole)
    assert record.losses == {step: expected.losses[step] for step in record.losses}


def test_validations_within_an_epoch(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"val_check_interval": 2}
    whole, expected = run(tmp_path / "whole", trainer_settings=settings)
    assert expected.validated == [2, 4, 6, 8]
    for step in (2, 3, 6):
        with pytest.raises(KilledError):
            run(tmp_path / str(step), Kill(step), trainer_settings=settings)
        path = str(tmp_path / str(step) / "checkpoints/last.ckpt")
        module, record = run(tmp_path / str(step), ckpt_path=path, trainer_settings=settings)
        assert same_bits(module, whole)
        assert record.validated == [at for at in expected.validated if at >= min(record.losses)]


def test_every_n_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"last.every_n_steps: expected an integer >= 1 or null, got 0"):
        LastCheckpoint(str(tmp_path), every_n_steps=0)


def test_broken_weights_are_not_written(tmp_path: Path) -> None:
    class Break(Callback):
        def on_before_zero_grad(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
            if trainer.global_step == 1:
                with torch.no_grad():
                    next(module.parameters())[0] = torch.nan

    told = (
        r"weights: NaN or infinity in encoder.layers.0.weight after step 2; .*last.ckpt stays as it was after step 1; "
    )
    with pytest.raises(UserError, match=told):
        run(tmp_path, Break(), ema=False)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
