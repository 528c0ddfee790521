"""The trained model of the tasks that use one: search, export and serve."""

from __future__ import annotations

from omegaconf import DictConfig

from metric_module.config.checks import check
from metric_module.config.plain import plain
from metric_module.errors import UserError
from metric_module.inference import Embedder
from metric_module.tasks.checkpoint import typed_keys


def load_model(cfg: DictConfig, device: str | None = None) -> tuple[DictConfig, Embedder]:
    """Check a configuration, and load the model of ``cfg.ckpt_path``.

    Args:
        cfg: The composed configuration; ``cfg.task.tower`` names one encoder of several.
        device: The device; None is the accelerator of this machine, otherwise the CPU.

    Returns:
        The plain configuration, and the model.

    Raises:
        UserError: If the configuration is wrong, an option is typed that comes with the model, or there is no model.
    """
    cfg = plain(cfg)
    check(cfg)
    for key in typed_keys() or ():
        if key.split(".")[0] in {"encoder", "distance", "criterion", "miner", "margin", "datamodule", "module"}:
            raise UserError(f"{key}: the model comes with its own from ckpt_path; leave this out")
    return cfg, Embedder.load(cfg.ckpt_path, device, tower=cfg.task.tower)
