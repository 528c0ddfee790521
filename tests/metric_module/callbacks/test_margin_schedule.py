"""Margin schedule: its formula, its effect on training and validation, and its end."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from metric_module import TripletModule, UserError
from metric_module.callbacks import MarginSchedule
from tests.helpers.training import Triples, loader, module, trainer


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield from Triples().batches


def watch(model: TripletModule) -> list[tuple[bool, float]]:
    """Record the mode and the margin of the model at every call of the criterion."""
    seen: list[tuple[bool, float]] = []
    inner = model.criterion.mine

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append((model.training, model.criterion.margin))
        return inner(*arguments, **options)

    model.criterion.mine = spy  # type: ignore[method-assign]
    return seen


def test_a_line_and_half_a_cosine() -> None:
    line = MarginSchedule(end=0.1, start_fraction=0.2, end_fraction=0.7)
    wave = MarginSchedule(end=0.1, start_fraction=0.2, end_fraction=0.7, shape="cosine")
    for step, share in ((0, 0.0), (20, 0.0), (30, 0.2), (45, 0.5), (60, 0.8), (70, 1.0), (100, 1.0)):
        assert line.margin(0.5, step, 100) == pytest.approx(0.5 - 0.4 * share)
        assert wave.margin(0.5, step, 100) == pytest.approx(0.5 - 0.2 * (1 - math.cos(math.pi * share)))
    assert (line.margin(0.3, 0, 7), line.margin(0.3, 7, 7)) == (0.3, 0.1)


def test_steps_validations_and_logs_see_it(tmp_path: Path) -> None:
    model = module()
    seen = watch(model)
    logged = []

    class Read(Callback):
        def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
            logged.append(trainer.callback_metrics["train/margin"].item())

    schedule = MarginSchedule(end=1.1)
    fit = trainer(tmp_path, max_epochs=2, callbacks=[schedule, Read()], log_every_n_steps=1, num_sanity_val_steps=1)
    fit.fit(model, loader(), loader())
    steps = [0.3 + 0.1 * step for step in range(8)]
    assert [margin for training, margin in seen if training] == pytest.approx(steps)
    assert [margin for training, margin in seen if not training] == pytest.approx([0.7, 1.1])
    assert logged == pytest.approx(steps)
    assert model.criterion.margin == 0.3
    seen.clear()
    fit.validate(model, loader(), verbose=False)
    assert seen == [(False, 0.3)], "figures after training are those of the configured margin"


def test_optimizer_steps_count_not_batches(tmp_path: Path) -> None:
    model = module()
    seen = watch(model)
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2, callbacks=[MarginSchedule(end=0.1)]).fit(model, loader())
    assert [margin for _, margin in seen] == pytest.approx([0.3, 0.3, 0.2, 0.2])


def test_training_continues_with_the_margins_it_would_have_had(tmp_path: Path) -> None:
    def fit(model: TripletModule, *callbacks: Callback, **options: Any) -> list[tuple[bool, float]]:
        seen = watch(model)
        schedule = MarginSchedule(end=0.05, shape="cosine")
        run = trainer(tmp_path, max_epochs=4, callbacks=[schedule, *callbacks])
        run.fit(model, loader(), weights_only=True, **options)
        return seen

    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *arguments: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole, rest = module(), module(seed=1)
    seen = fit(whole, Save())
    assert len(set(seen)) == 16
    assert fit(rest, ckpt_path=tmp_path / "1.ckpt") == seen[8:]
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


def test_the_margin_comes_back_after_a_failure_and_for_the_next_training(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
            if trainer.global_step == 3:
                raise RuntimeError("no more")

    model, schedule = module(), MarginSchedule(end=0.1)
    seen = watch(model)
    with pytest.raises(RuntimeError, match="no more"):
        trainer(tmp_path, callbacks=[schedule, Fail()]).fit(model, loader())
    assert seen[-1][1] < 0.3 == model.criterion.margin
    seen.clear()
    trainer(tmp_path, max_epochs=1, callbacks=[schedule]).fit(model, loader())
    assert [margin for _, margin in seen] == pytest.approx([0.3, 0.25, 0.2, 0.15])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_fraction": -0.1}, "expected 0 <= start_fraction < end_fraction <= 1, got start_fraction=-0.1, end_"),
        ({"end_fraction": 1.5}, "got start_fraction=0.0, end_fraction=1.5"),
        ({"start_fraction": 0.5, "end_fraction": 0.5}, "got start_fraction=0.5, end_fraction=0.5"),
        ({"shape": "step"}, "margin_schedule.shape: expected linear or cosine, got 'step'"),
    ],
)
def test_arguments_out_of_range(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        MarginSchedule(end=0.1, **arguments)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (0, "margin_schedule.end: expected a number > 0 for the hinge loss, got 0"),
        (math.nan, "margin_schedule.end: expected a finite number, got nan"),
        ("wide", "margin_schedule.end: expected a finite number, got 'wide'"),
    ],
)
def test_a_last_margin_that_the_loss_does_not_allow(tmp_path: Path, end: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        trainer(tmp_path, callbacks=[MarginSchedule(end=end)]).fit(module(), loader())


def test_a_training_without_end(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=-1, callbacks=[MarginSchedule(end=0.1)], max_time="00:00:01:00")
    with pytest.raises(UserError, match=r"margin_schedule: expected a training of known length; give max_epochs or"):
        run.fit(module(), DataLoader(Endless(), batch_size=None))


def test_a_module_without_a_criterion(tmp_path: Path) -> None:
    class Other(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

        def configure_optimizers(self) -> None:
            return None

    with pytest.raises(UserError, match=r"margin_schedule: expected a module with a TripletCriterion, Other has none"):
        trainer(tmp_path, callbacks=[MarginSchedule(end=0.1)]).fit(Other(), loader())
