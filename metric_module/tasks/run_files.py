"""Configuration and figures as files in the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from metric_module.storage.atomic import without_nan, write_whole
from metric_module.storage.run_folder import CONFIG


def write_config(cfg: DictConfig) -> None:
    """Write ``config.yaml`` and Hydra's own record ``.hydra`` to the folder of a run: from here on, it has started.

    Hydra itself would write its record before anything is checked, over the record of the run that is resumed.
    Every interpolation in ``config.yaml`` resolves without Hydra.

    Args:
        cfg: The composed configuration.

    Raises:
        UserError: If a file cannot be written.
    """
    folder = Path(cfg.output_dir)
    own = cfg.copy()
    own.output_dir = str(folder)
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        write_whole(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(cfg))
        write_whole(folder / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
        write_whole(folder / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(hydra.overrides.task))
    write_whole(folder / CONFIG, OmegaConf.to_yaml(own))


def write_metrics(folder: Path, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Write ``metrics.json``; NaN and infinity become null.

    Args:
        folder: The run's folder.
        figures: By stage and name, ``{"val": {"recall_at_1": ...}, "test": {...}}``.
    """
    write_whole(folder / "metrics.json", json.dumps(without_nan(figures), indent=2, sort_keys=True) + "\n")
