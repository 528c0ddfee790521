"""Compose configurations for small runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from metric_module.config import conf_folder
from metric_module.config.schema import register
from metric_module.config.trust import vouch_for

CONF = conf_folder()

Compose = Callable[..., DictConfig]

vouch_for("tests.helpers", "no_such", "Encoder")  # yaml files of small runs name them


@pytest.fixture
def small(tmp_path: Path) -> Compose:
    """Compose the shipped configuration for small data: ``small("miner=hard", folder="a")``."""
    register()

    def make(*overrides: str, folder: str = "run") -> DictConfig:
        given = (
            f"hydra.searchpath=[file://{Path(__file__).parents[1] / 'helpers' / 'conf'}]",
            "encoder=tiny",
            "datamodule=clouds",
            "trainer.max_epochs=2",
            "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=1",
            "logger=csv",
            "miner=all",
            f"output_dir='{tmp_path / folder}'",
        )
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=[*given, *overrides])

    return make
