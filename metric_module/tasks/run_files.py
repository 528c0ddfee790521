"""Configuration and figures as files in the folder of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from metric_module.storage.atomic import write_whole


def write_config(cfg: DictConfig) -> None:
    """Write ``config.yaml`` to the folder of a run.

    Args:
        cfg: The configuration, resolved.
    """
    write_whole(Path(cfg.output_dir) / "config.yaml", OmegaConf.to_yaml(cfg))


def write_metrics(folder: Path, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Write ``metrics.json``; NaN and infinity become null.

    Args:
        folder: The run's folder.
        figures: By stage and name, ``{"val": {"recall_at_1": ...}, "test": {...}}``.
    """
    finite = {
        stage: {name: value if math.isfinite(value) else None for name, value in row.items()}
        for stage, row in figures.items()
    }
    write_whole(folder / "metrics.json", json.dumps(finite, indent=2, sort_keys=True) + "\n")
