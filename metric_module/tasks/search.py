"""Find the nearest items of a gallery: the task ``search``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metric_module.checks import check_count
from metric_module.errors import UserError
from metric_module.inference.items import find_gallery, find_items
from metric_module.inference.reranked import one_method
from metric_module.report.search_page import Hit, Searched, search_page
from metric_module.storage.atomic import write_whole
from metric_module.tasks.run_files import write_config
from metric_module.tasks.trained_model import load_model

PRINTED = 5
"""Queries whose neighbours are printed; all of them are in the files."""


def search(cfg: DictConfig) -> dict[str, float]:
    """Search a gallery for each query; print a table, and write ``search.csv`` and ``search.html``.

    Args:
        cfg: The composed configuration: ``ckpt_path`` (the folder of a run, a checkpoint or an exported folder),
            ``query`` and ``gallery`` (see :mod:`metric_module.inference.items`). ``cfg.task`` has ``k``, ``rerank``,
            ``tower`` and ``batch_size``.

    Returns:
        Number of queries and of gallery items: ``{"search/queries": ..., "search/gallery": ...}``.

    Raises:
        UserError: If the configuration is wrong, there is nothing to search, or an item cannot be read.
    """
    for name in ("query", "gallery"):
        if cfg[name] is None:
            raise UserError(f"{name}: expected a file or a folder, got none; give {name}=<folder>")
    for name in ("k", "batch_size"):
        check_count(f"task.{name}", cfg.task[name])
    rerank: Any = OmegaConf.to_object(cfg.task.rerank) if OmegaConf.is_config(cfg.task.rerank) else cfg.task.rerank
    one_method(rerank, "task.rerank")
    cfg, embedder = load_model(cfg)
    queries = find_items("query", cfg.query, embedder).items
    names = [embedder.name_of(item, position) for position, item in enumerate(queries)]
    embedded = embedder.embed(queries, cfg.task.batch_size)  # (Q, D)
    index = find_gallery(cfg.gallery, embedder, cfg.task.batch_size)
    distances, positions = index.search(embedded, cfg.task.k, rerank)  # (Q, k), (Q, k)
    items, labels = index.names, index.labels  # each makes a list of all items
    found = [
        Searched(name, [Hit(items[at], labels[at], distance) for at, distance in zip(*row, strict=True)])
        for name, *row in zip(names, positions.tolist(), distances.tolist(), strict=True)
    ]
    folder = Path(cfg.output_dir)
    Console().print(_table(found[:PRINTED], index.threshold))
    write_config(cfg)
    write_whole(folder / "search.csv", _csv(found, index.threshold))
    write_whole(folder / "search.html", search_page(found, len(index), index.threshold))
    print(f"{len(found):,} queries in {len(index):,} items; written to {folder}")
    return {"search/queries": float(len(found)), "search/gallery": float(len(index))}


def _rows(found: list[Searched], threshold: float | None) -> Iterator[list[str]]:
    """Yield a row for each neighbour: query, rank, name, label, distance, same."""
    for query in found:
        for rank, hit in enumerate(query.hits, start=1):
            same = "" if threshold is None else "yes" if hit.distance <= threshold else "no"
            yield [query.name, str(rank), hit.name, hit.label or "", f"{hit.distance:.6f}", same]


HEADER = ("query", "rank", "name", "label", "distance", "same")


def _table(found: list[Searched], threshold: float | None) -> Table:
    limit = "" if threshold is None else f"same: distance up to {threshold:.4f}, the best threshold on val"
    made = Table(caption=limit)
    for name in HEADER:
        made.add_column(name, overflow="fold")
    for row in _rows(found, threshold):
        made.add_row(*map(Text, [row[0] if row[1] == "1" else "", *row[1:]]))  # str would be read as markup
    return made


def _csv(found: list[Searched], threshold: float | None) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *_rows(found, threshold)])
    return text.getvalue()
