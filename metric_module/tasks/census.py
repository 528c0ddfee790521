"""Measure, before training, how many triplets are easy, semi-hard and hard: the task ``census``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metric_module.callbacks.before_training import margins_around
from metric_module.config.plain import plain
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.evaluation import Separation, separation
from metric_module.evaluation.separation import QUANTILES
from metric_module.keyed_random import combine
from metric_module.storage.atomic import write_whole
from metric_module.tasks.checkpoint import restore
from metric_module.tasks.embedding.shards import Shards
from metric_module.tasks.embedding.split import embed_split
from metric_module.tasks.run_files import write_config

CENSUS = 11


def census(cfg: DictConfig) -> dict[str, float]:
    """Take the census of a split with an encoder that is fresh, pretrained, or from ``cfg.ckpt_path``.

    Writes ``census.json`` and ``census.html``: quantiles of the distances of positive and negative pairs, and the
    shares of easy, semi-hard and hard triplets at ``cfg.task.margins`` and the run's own margin.

    Args:
        cfg: The composed configuration. ``cfg.task`` has ``split``, ``margins`` and ``anchors``, the number of samples
            that serve as anchors (null: all).

    Returns:
        The shares at the run's margin, ``{"census/easy": ..., "census/semihard": ..., "census/hard": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong.
    """
    cfg = plain(cfg)
    listed = _margins(cfg)
    cfg.logger = {}  # there is nothing to log
    cfg, parts, weights, _ = restore(cfg)
    if DataModuleFacts(parts.datamodule).sought is not None:
        name = type(parts.datamodule).__name__
        raise UserError(
            f"task=census: expected classes, and {name} has pairs; training logs their census as train/easy ..."
        )
    listed = sorted({*listed, float(cfg.margin)})
    margins = sorted({*listed, *margins_around(cfg.margin), *margins_around(listed[-1] / 2)})

    def write(shards: Shards) -> dict[str, float]:
        """Measure, write the files and print the table, on the first process."""
        from metric_module.report.census_page import census_page  # plotly is slow to import

        embeddings = torch.from_numpy(np.concatenate([block.embeddings for block in shards.blocks()]))  # (N, D)
        labels, anchors = torch.from_numpy(shards.labels), _some(len(shards.labels), cfg.task.anchors)
        distance = parts.module.criterion.distance
        found = separation(embeddings, labels, margins, distance=distance, anchors=anchors)
        Console().print(table(found, listed, cfg.margin))
        folder = Path(cfg.output_dir)
        write_config(cfg)
        head = {"split": cfg.task.split, "samples": len(labels), "margin": cfg.margin}
        write_whole(folder / "census.json", json.dumps(head | described(found, listed), indent=2) + "\n")
        about = _about(cfg.task.split, labels, weights, anchors)
        write_whole(folder / "census.html", census_page(found, cfg.margin, listed, about))
        print(f"written to {folder}")
        at = margins.index(cfg.margin)
        return {f"census/{name}": float(getattr(found, name)[at]) for name in ("easy", "semihard", "hard")}

    return embed_split(parts, cfg.task.split, Path(cfg.output_dir), write)


def described(found: Separation, listed: list[float]) -> dict[str, Any]:
    """Turn a separation into plain values for ``census.json``.

    Args:
        found: The separation at all margins.
        listed: The margins to keep.
    """
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
    """Make a table with one row per margin.

    Args:
        found: The separation at all margins.
        listed: The margins to show.
        margin: The run's own, which is marked.
    """
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
    """Margins of the task, once its options are checked."""
    margins = [float(margin) for margin in cfg.task.margins]
    if min(margins, default=0) < 0:
        raise UserError(f"task.margins: expected numbers >= 0, got {min(margins)}")
    if cfg.task.anchors is not None and cfg.task.anchors < 1:
        raise UserError(f"task.anchors: expected an integer >= 1 or null, got {cfg.task.anchors}")
    return margins


def _about(split: str, labels: Tensor, weights: str | None, anchors: Tensor | None) -> str:
    """Describe the samples and the encoder in a sentence or two."""
    encoder = "the encoder as training would start" if weights is None else f"the weights of {weights}"
    some = "All of them serve" if anchors is None else f"{len(anchors):,} of them, always the same, serve"
    return (
        f"{len(labels):,} samples of {len(torch.unique(labels)):,} classes ({split}), embedded by {encoder}. "
        f"{some} as anchors, with every other sample as positive or negative."
    )


def _some(size: int, most: int | None) -> Tensor | None:
    """Choose at most ``most`` of ``size`` rows, the same ones every time; None stands for all."""
    if most is None or most >= size:
        return None
    return combine(CENSUS, torch.arange(size)).argsort()[:most].sort().values
