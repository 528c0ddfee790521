"""Measure a trained encoder: the task ``evaluate``."""

from __future__ import annotations

from omegaconf import DictConfig

from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.tasks.checkpoint import restore
from metric_module.tasks.figures import STAGES
from metric_module.tasks.run_report import read_figures

SPLITS = (*STAGES, "train", "all")


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Measure the checkpoint ``cfg.ckpt_path``, or the encoder of ``cfg.module.encoder_weights``, on val and test.

    With ``cfg.task.split`` it is measured on that split alone; ``all`` is the whole data set as one. Without a
    checkpoint and weights, a pretrained encoder is measured as training would start.

    From the command line, encoder, distance, criterion and data are those that a checkpoint was trained with, except
    for the options that were typed.

    Args:
        cfg: The composed configuration.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``, or ``{"all/map_at_r": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong, or the checkpoint does not fit the encoder.
    """
    split = cfg.task.get("split")
    if split is not None and split not in SPLITS:
        raise UserError(f"task.split: expected {', '.join(SPLITS)} or null (val and test), got {split!r}")
    restored = restore(cfg)
    if split not in {None, *STAGES} and DataModuleFacts(restored.parts.datamodule).sought is not None:
        name = type(restored.parts.datamodule).__name__
        raise UserError(f"task.split: {name} has pairs, whose links are those of val and test; got {split!r}")
    return read_figures(restored.cfg, restored.parts, split, record=True, trained_on=restored.data)
