"""The files of a run: configuration, figures, checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from metric_module.errors import UserError
from metric_module.module import TripletModule
from metric_module.storage.atomic import write_whole
from metric_module.storage.checkpoints import load_checkpoint, newest_checkpoint

_PASSING = ("memory.", "criterion.miner.")
"""State that serves training alone: a checkpoint can be evaluated with another miner, and without its memory."""


def write_config(cfg: DictConfig) -> None:
    """Write ``config.yaml``: the composed configuration, in which every interpolation resolves without Hydra."""
    folder = cfg.output_dir
    own = cfg.copy()
    own.output_dir = str(folder)
    write_whole(Path(folder) / "config.yaml", OmegaConf.to_yaml(own))


def write_metrics(folder: Path, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Write ``metrics.json``, ``{"val": {"recall_at_1": ...}, "test": {...}}``; what is not finite becomes null."""
    finite = {
        stage: {name: value if math.isfinite(value) else None for name, value in row.items()}
        for stage, row in figures.items()
    }
    write_whole(folder / "metrics.json", json.dumps(finite, indent=2, sort_keys=True) + "\n")


def find_checkpoint(cfg: DictConfig) -> str | None:
    """The checkpoint that ``ckpt_path`` names; for ``last`` the newest whole one in the run's folder, or None."""
    if cfg.ckpt_path != "last":
        path: str | None = cfg.ckpt_path
        return path
    newest = newest_checkpoint(Path(cfg.output_dir) / "checkpoints")
    return None if newest is None else str(newest)


def load_weights(module: TripletModule, path: str) -> None:
    """Load a checkpoint's weights into the module, as plain tensors, and its threshold.

    Args:
        module: What to load into.
        path: A checkpoint of Lightning's.

    Raises:
        UserError: If the file is no checkpoint, or belongs to another encoder or distance.
    """
    checkpoint = load_checkpoint(path)
    state = checkpoint["state_dict"]
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    strange = [name for name in own | state if name not in fitting and not name.startswith(_PASSING)]
    if strange:
        raise UserError(
            f"ckpt_path: {path} does not fit {type(module.encoder).__name__}, first at {strange[0]}; "
            f"give the options it was trained with: {_trained_with(Path(path))}"
        )
    module.load_state_dict(fitting, strict=False)
    module.threshold = checkpoint.get("threshold")


def _trained_with(checkpoint: Path) -> str:
    """The overrides of the run that wrote a checkpoint, if it says."""
    overrides = checkpoint.parent.parent / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return "see config.yaml of its run"
    return " ".join(str(word) for word in OmegaConf.load(overrides)) or "the defaults"
