"""Re-ranking: its cost, and retrieval figures of trained models with and without it.

    python -m benchmarks.reranking                                        # 10,000 items of 128 and of 512 numbers
    python -m benchmarks.reranking --items 100000 --widths 128
    python run.py task=embed ckpt_path=<run>/checkpoints/best.ckpt task.format=npz                # for each model
    python -m benchmarks.reranking --files emoji=<folder>/embeddings.npz glyphs=<folder>/embeddings.npz

The cost is that of all retrieval figures in a fresh process, every item being query and gallery; the classes overlap.
Peak memory is that of the whole process, torch and the package included.

With files, settings are chosen for each model by MAP@R on val, among those of ``GRID``; test is measured for them and
for the defaults.

Shapes: N = items, D = embedding size.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import markdown, peak_megabytes
from metric_module.evaluation import RetrievalMetric

FIGURES = ("recall_at_1", "map_at_r", "map")
DEFAULTS = {"k_reciprocal": {"k1": 20, "k2": 6, "weight": 0.3}, "query_expansion": {"k": 10, "alpha": 3.0}}
GRID: dict[str, dict[str, list[Any]]] = {
    "k_reciprocal": {"k1": [3, 5, 7, 10, 20], "k2": [1, 2, 3, 6], "weight": [0.1, 0.3, 0.5, 0.7]},
    "query_expansion": {"k": [1, 2, 3, 5, 10], "alpha": [0.0, 1.0, 3.0, 6.0]},
}


def cloud(items: int, width: int) -> tuple[Tensor, Tensor]:
    """Unit vectors ``(N, D)`` of classes of six, which overlap, and their labels ``(N,)``."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(items) // 6
    centres = torch.randn(items // 6 + 1, width, generator=generator)
    noise = 1.4 * (width / 128) ** 0.25
    rows = centres[labels] + noise * torch.randn(items, width, generator=generator)
    return torch.nn.functional.normalize(rows), labels


def figures(rows: Tensor, labels: Tensor, rerank: Any) -> dict[str, float]:
    """Retrieval figures, every item being query and gallery."""
    metric = RetrievalMetric(recall_at=(1,), rerank=rerank)
    metric.update(rows, labels, torch.arange(len(labels)))
    found: dict[str, float] = metric.compute()
    return found


def cost(items: int, width: int, rerank: str | None, threads: int) -> tuple[float, float, float]:
    """Seconds, those of all cores together, and the peak megabytes of this process, which must be a fresh one."""
    torch.set_num_threads(threads)
    rows, labels = cloud(items, width)
    start, busy = time.perf_counter(), time.process_time()
    found = figures(rows, labels, rerank)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    assert 0.02 < found["map_at_r"] < 0.98, found
    return seconds, busy, peak_megabytes()


def costs(items: int, widths: list[int], threads: int) -> str:
    """Measure each case in a process of its own, and return a table."""
    lines = []
    cases: list[str | None] = [None, *DEFAULTS]
    for width, rerank in itertools.product(widths, cases):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            seconds, busy, megabytes = pool.submit(cost, items, width, rerank, threads).result()
        name = "plain" if rerank is None else f"plain and {rerank}"
        lines.append([f"{items:,} x {width}", name, f"{seconds:.1f} s", f"{busy:.1f} s", f"{megabytes:,.0f} MB"])
        print(" ".join(lines[-1]), flush=True)
    return markdown(["items", "figures", "time", "time of all cores", "peak memory"], lines)


def read(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Embeddings and labels of val and test, in order of id."""
    with np.load(path) as file:
        splits, rows, labels = (file[name] for name in ("split", "embedding", "label_id"))
    return {
        split: (torch.from_numpy(rows[splits == split]), torch.from_numpy(labels[splits == split]))
        for split in ("val", "test")
    }


def settings(method: str) -> list[dict[str, Any]]:
    """All settings of the grid that go together."""
    names, values = GRID[method].keys(), GRID[method].values()
    made = [dict(zip(names, one, strict=True)) for one in itertools.product(*values)]
    return [one for one in made if one.get("k2", 0) <= one.get("k1", 0)]


def chosen(method: str, val: tuple[Tensor, Tensor]) -> Mapping[str, Any]:
    """The settings with the largest MAP@R on val."""
    return max(settings(method), key=lambda one: figures(*val, {method: one})[f"map_at_r_{method}"])


def rows_of(name: str, path: Path) -> list[list[str]]:
    """Lines of the table for one model."""
    data = read(path)
    found: list[list[str]] = []
    cases: list[tuple[str, str, Any]] = [(name, "", None)]
    for method, defaults in DEFAULTS.items():
        for label, one in (("defaults", defaults), ("chosen on val", chosen(method, data["val"]))):
            numbers = ", ".join(f"{key}={value}" for key, value in one.items())
            cases.append((f"{method}, {label}: {numbers}", f"_{method}", {method: one}))
    for label, suffix, rerank in cases:
        got = {split: figures(*data[split], rerank) for split in data}
        found.append([label, *(f"{got[split][figure + suffix]:.3f}" for split in data for figure in FIGURES)])
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--files", nargs="+", default=[], metavar="NAME=FILE", help="what task=embed wrote")
    options = parser.parse_args()
    if not options.files:
        print(costs(options.items, options.widths, options.threads))
        return
    torch.set_num_threads(options.threads)
    lines = [line for name, path in (one.split("=", 1) for one in options.files) for line in rows_of(name, Path(path))]
    print(
        markdown(
            ["", *(f"{split}: {figure}" for split in ("val", "test") for figure in ("R@1", "MAP@R", "mAP"))], lines
        )
    )


if __name__ == "__main__":
    main()
