"""Before training: is there anything to learn at this margin, and where does the margin bite?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metric_module.callbacks.before_training import margins_around
from metric_module.config.checks import check
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.evaluation import Gathered, Separation, separation
from metric_module.evaluation.separation import QUANTILES
from metric_module.keyed_random import combine
from metric_module.storage.atomic import write_whole
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.build import build
from metric_module.tasks.checkpoint import as_trained
from metric_module.tasks.embedding.split import embed_split
from metric_module.tasks.run_files import find_checkpoint, load_weights, write_config

CENSUS = 11


def census(cfg: DictConfig) -> dict[str, float]:
    """Take the census of a whole split with the encoder as it is: fresh, pretrained, or from ``cfg.ckpt_path``.

    Writes ``census.json`` and ``census.html``: quantiles of the distances of pairs of one class and of two, and the
    shares of easy, semi-hard and hard triplets at ``cfg.task.margins`` and the run's own margin.

    Args:
        cfg: The composed configuration. ``cfg.task`` has ``split``, ``margins`` and ``anchors``, how many samples
            serve as anchors; null takes all.

    Returns:
        The shares at the run's margin, ``{"census/easy": ..., "census/semihard": ..., "census/hard": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong.
    """
    path = find_checkpoint(cfg)
    if path is not None:
        cfg = as_trained(cfg, load_checkpoint(path))
    check(cfg)
    listed = _margins(cfg)
    margins = sorted({*listed, *margins_around(cfg.margin), *margins_around(listed[-1] / 2)})
    cfg.logger = {}  # there is nothing to log
    parts = build(cfg)
    if DataModuleFacts(parts.datamodule).sought is not None:
        name = type(parts.datamodule).__name__
        raise UserError(
            f"task=census: expected classes, and {name} has pairs; training logs their census as train/easy ..."
        )
    if path is not None:
        load_weights(parts.module, path)
    samples = embed_split(parts, cfg.task.split)
    anchors = _some(len(samples.labels), cfg.task.anchors)
    distance = parts.module.criterion.distance
    found = separation(samples.embeddings, samples.labels, margins, distance=distance, anchors=anchors)
    at = margins.index(cfg.margin)
    if parts.trainer.is_global_zero:
        from metric_module.report.census_page import census_page  # plotly takes its time

        folder = Path(cfg.output_dir)
        write_config(cfg)
        told = {"split": cfg.task.split, "samples": len(samples.labels), "margin": cfg.margin}
        write_whole(folder / "census.json", json.dumps(told | described(found, listed), indent=2) + "\n")
        write_whole(folder / "census.html", census_page(found, cfg.margin, listed, _about(cfg, samples, anchors)))
        Console().print(table(found, listed, cfg.margin))
        print(f"written to {folder}")
    return {f"census/{name}": float(getattr(found, name)[at]) for name in ("easy", "semihard", "hard")}


def described(found: Separation, listed: list[float]) -> dict[str, Any]:
    """A separation at the listed margins, as plain values."""
    names = [f"{level:g}" for level in QUANTILES]
    return {
        "triplets": int(found.triplets),
        "d_ap": dict(zip(names, found.positive_quantiles.tolist(), strict=True)),
        "d_an": dict(zip(names, found.negative_quantiles.tolist(), strict=True)),
        "margins": [
            {"margin": margin, "easy": easy, "semihard": semihard, "hard": hard}
            for margin, easy, semihard, hard in zip(
                *(part.tolist() for part in (found.margins, found.easy, found.semihard, found.hard)), strict=True
            )
            if margin in listed
        ],
    }


def table(found: Separation, listed: list[float], margin: float) -> Table:
    """One row per listed margin; the run's own is marked."""
    made = Table(caption=f"shares of {int(found.triplets):,} triplets")
    for name in ("margin", "easy", "semi-hard", "hard", "with a loss"):
        made.add_column(name, justify="right")
    for row in described(found, listed)["margins"]:
        mark = " <" if row["margin"] == margin else ""
        loss = row["semihard"] + row["hard"]
        shares = (row["easy"], row["semihard"], row["hard"], loss)
        made.add_row(f"{row['margin']:g}{mark}", *(f"{share:.4f}" for share in shares))
    return made


def _margins(cfg: DictConfig) -> list[float]:
    """Ascending, the run's own among them."""
    margins = sorted({*map(float, cfg.task.margins), float(cfg.margin)})
    if margins[0] < 0:
        raise UserError(f"task.margins: expected numbers >= 0, got {margins[0]}")
    if cfg.task.anchors is not None and cfg.task.anchors < 1:
        raise UserError(f"task.anchors: expected an integer >= 1 or null, got {cfg.task.anchors}")
    return margins


def _about(cfg: DictConfig, samples: Gathered, anchors: Tensor | None) -> str:
    """What was looked at, in a sentence or two."""
    classes = len(set(samples.labels.tolist()))
    weights = cfg.ckpt_path or cfg.module.encoder_weights
    encoder = "the encoder as training would start" if weights is None else f"the weights of {weights}"
    some = "All of them serve" if anchors is None else f"{len(anchors):,} of them, always the same, serve"
    return (
        f"{len(samples.labels):,} samples of {classes:,} classes ({cfg.task.split}), embedded by {encoder}. "
        f"{some} as anchors, with every other sample as positive or negative."
    )


def _some(size: int, most: int | None) -> Tensor | None:
    """Rows of so many samples, always the same; None for all."""
    if most is None or most >= size:
        return None
    return combine(CENSUS, torch.arange(size)).argsort()[:most].sort().values
