"""Read the figures of a trained encoder."""

from __future__ import annotations

from omegaconf import DictConfig

from metric_module.config.checks import check
from metric_module.errors import UserError
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.build import build
from metric_module.tasks.checkpoint import as_trained
from metric_module.tasks.run_files import find_checkpoint, load_weights, write_config
from metric_module.tasks.run_report import read_figures


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Load ``cfg.ckpt_path`` and read val and test with it; or the encoder of ``cfg.module.encoder_weights``.

    From the command line, encoder, distance, criterion and data are those that a checkpoint was trained with, except
    for what the command line says.

    Args:
        cfg: The composed configuration.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong, or the checkpoint does not fit the encoder.
    """
    path = find_checkpoint(cfg)
    if path is None and cfg.ckpt_path is not None:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: no checkpoint in {cfg.output_dir}/checkpoints")
    if path is not None:
        cfg = as_trained(cfg, load_checkpoint(path))
    check(cfg)
    parts = build(cfg)
    if path is not None:
        load_weights(parts.module, path)
    if parts.trainer.is_global_zero:
        write_config(cfg)
    return read_figures(cfg, parts)
