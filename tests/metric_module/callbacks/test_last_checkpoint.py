"""A training that is killed at any step continues exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from metric_module import TripletModule, UserError
from metric_module.callbacks import CollapseGuard, FreezeBackbone, LastCheckpoint
from tests.helpers.clouds import Clouds, Record, run, same_bits

STEPS = 8


class KilledError(Exception):
    pass


class Kill(Callback):
    """A callback that aborts training in the middle of a step, without any cleanup."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step >= self.step:
            raise KilledError


class Send(Callback):
    """A callback that sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: int, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@cache
def unbroken(workers: int = 0) -> tuple[TripletModule, Record]:
    with TemporaryDirectory() as folder:
        return run(Path(folder), workers=workers)


def check(module: TripletModule, record: Record) -> None:
    whole, expected = unbroken()
    assert record.ids == {step: expected.ids[step] for step in record.ids}
    assert record.losses == {step: expected.losses[step] for step in record.losses}
    assert record.validated == [step for step in expected.validated if step >= min(record.losses, default=STEPS)]
    assert same_bits(module, whole)


def test_the_run_has_what_a_resume_must_bring_back(tmp_path: Path) -> None:
    module, record = unbroken()
    assert list(record.ids) == list(range(STEPS))
    assert record.validated == [4, 8]
    assert record.started == [0, 1]
    assert module.memory is not None
    assert module.memory.seen == 8 * STEPS
    other, _ = run(tmp_path)
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


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signal_while_every_step_is_validated(tmp_path: Path, accumulate: int) -> None:
    settings: dict[str, Any] = {"val_check_interval": 1, "accumulate_grad_batches": accumulate}
    whole, expected = run(tmp_path / "whole", trainer_settings=settings)
    assert len(expected.validated) == STEPS
    with pytest.raises(SystemExit):
        run(tmp_path, Send(1, signal.SIGTERM), trainer_settings=settings)
    path = tmp_path / "checkpoints/last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 2, "not at the end of the epoch"
    module, record = run(tmp_path, ckpt_path=str(path), trainer_settings=settings)
    assert record.validated == expected.validated[2 * accumulate :]
    assert same_bits(module, whole)


def test_every_n_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"last.every_n_steps: expected an integer >= 1 or null, got 0"):
        LastCheckpoint(str(tmp_path), every_n_steps=0)


class Break(Callback):
    """A callback that makes a weight NaN in the middle of the second step."""

    def on_before_zero_grad(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        if trainer.global_step == 1:
            with torch.no_grad():
                next(module.parameters())[0] = torch.nan


def weights_are_finite(path: Path) -> bool:
    saved = torch.load(path, weights_only=True)
    return all(bool(torch.isfinite(value).all()) for value in saved["state_dict"].values())


def test_nonfinite_weights_are_not_written(tmp_path: Path) -> None:
    told = (
        r"weights: NaN or infinity in encoder.backbone.0.weight after step 2; .*last.ckpt stays as it was after step 1"
    )
    with pytest.raises(UserError, match=told):
        run(tmp_path, Break(), ema=False)
    assert weights_are_finite(tmp_path / "checkpoints/last.ckpt")


def test_without_that_guard_the_good_checkpoint_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.callbacks.last_checkpoint._nonfinite_weights", lambda module: [])
    with pytest.raises(UserError, match="NaN or infinity in 8 of 8 embeddings at step 2"):
        run(tmp_path, Break(), ema=False)
    assert not weights_are_finite(tmp_path / "checkpoints/last.ckpt")


def test_without_listening_a_signal_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LastCheckpoint, "_must_stop", lambda *arguments: False)
    _, record = run(tmp_path, Send(2, signal.SIGTERM))
    assert len(record.ids) == STEPS, "it trained on to the end"


@pytest.mark.parametrize(
    ("epochs", "settings", "kills", "validated"),
    [
        (-1, {"max_steps": 10}, (4, 5, 8, 9), [4, 8, 10]),
        (2, {"max_steps": 8}, (4, 6), [4, 8]),
        (3, {"check_val_every_n_epoch": 5}, (5, 8, 9, 11), [12]),
        (-1, {"max_steps": 6, "check_val_every_n_epoch": 10}, (3, 5), [6]),
        (3, {"val_check_interval": 3, "check_val_every_n_epoch": None}, (3, 4, 6, 7, 10), [3, 6, 9, 12]),
        (3, {"limit_train_batches": 3}, (3, 4, 6, 7), [3, 6, 9]),
        (4, {"check_val_every_n_epoch": 2}, (8, 13), [8, 16]),
    ],
)
def test_other_lengths_and_other_validations(
    epochs: int, settings: dict[str, Any], kills: tuple[int, ...], validated: list[int], tmp_path: Path
) -> None:
    whole, expected = run(tmp_path / "whole", epochs=epochs, trainer_settings=settings)
    assert expected.validated == validated
    for step in kills:
        folder = tmp_path / str(step)
        with pytest.raises(KilledError):
            run(folder, Kill(step), epochs=epochs, trainer_settings=settings)
        path = str(folder / "checkpoints/last.ckpt")
        first = torch.load(path, weights_only=True)["global_step"]
        module, record = run(folder, ckpt_path=path, epochs=epochs, trainer_settings=settings)
        assert record.ids == {at: ids for at, ids in expected.ids.items() if at >= first}, step
        assert record.validated == [at for at in validated if at > first], step
        assert same_bits(module, whole), step


def test_killed_in_a_validation_it_is_made_up_for(tmp_path: Path) -> None:
    class KillValidation(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, *arguments: Any) -> None:
            raise KilledError

    settings: dict[str, Any] = {"max_steps": 6, "check_val_every_n_epoch": 10}
    whole, _ = run(tmp_path / "whole", epochs=-1, trainer_settings=settings)
    with pytest.raises(KilledError):
        run(tmp_path, KillValidation(), epochs=-1, trainer_settings=settings)
    path = str(tmp_path / "checkpoints/last.ckpt")
    module, record = run(tmp_path, ckpt_path=path, epochs=-1, trainer_settings=settings)
    assert record.validated == [6]
    assert same_bits(module, whole)


def test_the_guard_counts_on(tmp_path: Path) -> None:
    guards = [CollapseGuard() for _ in range(3)]
    run(tmp_path / "whole", guards[0], epochs=1)
    with pytest.raises(KilledError):
        run(tmp_path, guards[1], Kill(2), epochs=1)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["CollapseGuard"]
    assert saved["epoch"]["anchors"] == 16
    run(tmp_path, guards[2], ckpt_path=str(tmp_path / "checkpoints/last.ckpt"), epochs=1)
    assert guards[2].state_dict() == guards[0].state_dict()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_checkpoint_after_training_and_a_second_fit(tmp_path: Path, workers: int) -> None:
    class Save(Callback):
        def on_fit_end(self, trainer: Trainer, *arguments: Any) -> None:
            trainer.save_checkpoint(tmp_path / "after.ckpt")

    _, expected = run(tmp_path / "whole", epochs=4)
    run(tmp_path, Save(), epochs=2, workers=workers)
    after, last = (torch.load(tmp_path / name, weights_only=True) for name in ("after.ckpt", "checkpoints/last.ckpt"))
    assert after["Clouds"] == last["Clouds"]
    assert (last["Clouds"]["epoch"], last["Clouds"]["step"]) == (2, 0)
    _, record = run(tmp_path, ckpt_path=str(tmp_path / "after.ckpt"), epochs=4, workers=workers)
    assert record.ids == {step: expected.ids[step] for step in range(8, 16)}
    data = Clouds(classes_per_batch=4, samples_per_class=2, seed=2, num_workers=workers)
    data.load_state_dict({"epoch": 1, "step": 2})
    data.teardown("fit")
    first = next(iter(data.train_dataloader())).index.tolist()
    assert first == expected.ids[0]


@pytest.mark.parametrize("step", [2, 4, 6])
def test_what_changes_with_the_epoch(step: int, tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", FreezeBackbone(epochs=1), every="epoch", ema=False)
    with pytest.raises(KilledError):
        run(tmp_path, Kill(step), FreezeBackbone(epochs=1), every="epoch", ema=False)
    path = str(tmp_path / "checkpoints/last.ckpt")
    module, _ = run(tmp_path, FreezeBackbone(epochs=1), every="epoch", ema=False, ckpt_path=path)
    assert same_bits(module, whole)


@pytest.mark.parametrize("ema", [True, False])
def test_a_finished_run_is_resumed(tmp_path: Path, ema: bool) -> None:
    whole, _ = run(tmp_path, ema=ema)
    module, record = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"), ema=ema)
    assert record.ids == {}
    assert same_bits(module, whole)


def test_overfit_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"trainer.overfit_batches: Lightning would draw other batches than the sampler"
    ):
        run(tmp_path, trainer_settings={"overfit_batches": 2})


GROUP = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.helpers import clouds

class Slow(clouds.Clouds):
    def load(self):
        samples = super().load()
        def fetch(ids):
            time.sleep(0.8)
            return samples.fetch(ids)
        return samples._replace(fetch=fetch)

clouds.Clouds = Slow
def send():
    while not (Path(sys.argv[2]) / "checkpoints/last.ckpt").exists():
        time.sleep(0.01)
    time.sleep(0.1)  # the next batch is still being read
    os.killpg(0, int(sys.argv[3]))
threading.Thread(target=send, daemon=True).start()
clouds.run(Path(sys.argv[2]), workers=1)
"""


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_terminal(number: int, tmp_path: Path) -> None:
    words = [sys.executable, "-c", GROUP, str(Path(__file__).resolve().parents[3]), str(tmp_path), str(int(number))]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True, timeout=120)
    assert ended.returncode == 128 + number, ended.stderr
    step = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step >= 2  # a busy machine may deliver the signal some batches later
    assert f"stopped by {signal.Signals(number).name} after step {step}" in ended.stderr
