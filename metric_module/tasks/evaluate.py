"""Measure a trained encoder: the task ``evaluate``."""

from __future__ import annotations

from omegaconf import DictConfig

from metric_module.tasks.checkpoint import restore
from metric_module.tasks.run_report import read_figures


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Measure the checkpoint ``cfg.ckpt_path``, or the encoder of ``cfg.module.encoder_weights``, on val and test.

    From the command line, encoder, distance, criterion and data are those that a checkpoint was trained with, except
    for the options that were typed.

    Args:
        cfg: The composed configuration.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong, or the checkpoint does not fit the encoder.
    """
    restored = restore(cfg)
    return read_figures(restored.cfg, restored.parts, record=True)
