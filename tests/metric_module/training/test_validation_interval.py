"""When a training validates by default."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from metric_module.config.schema import TrainerConfig
from metric_module.training.validation_interval import resolve_validations

OPEN = {"check_val_every_n_epoch": None}


@pytest.mark.parametrize(
    ("given", "interval", "epochs"),
    [
        ({"max_steps": 896}, 112, None),
        ({"max_steps": 100, "accumulate_grad_batches": 4}, 48, None),
        ({"max_steps": 5}, 1, None),
        ({"max_epochs": 56, "max_steps": 896}, None, 7),
        ({"max_epochs": 3}, None, 1),
        ({"max_epochs": -1, "max_steps": 80}, 10, None),
        ({"max_epochs": -1}, None, 1),
        ({}, None, 1),
        ({"max_steps": 896, "val_check_interval": 50}, 50, None),
        ({"max_steps": 896, "val_check_interval": 0.5}, 0.5, 1),
        ({"max_steps": 896, "check_val_every_n_epoch": 3}, None, 3),
        ({"max_steps": 896, "check_val_every_n_epoch": 3, "val_check_interval": 9}, 9, 3),
    ],
)
def test_an_eighth_of_the_run_unless_something_is_given(
    given: dict[str, Any], interval: float | None, epochs: int | None
) -> None:
    cfg = OmegaConf.structured(TrainerConfig(_target_="lightning.pytorch.Trainer", **{**OPEN, **given}))
    resolve_validations(cfg)
    assert cfg.val_check_interval == interval and cfg.check_val_every_n_epoch == epochs
