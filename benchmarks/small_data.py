"""Runs on small data sets: what raw inputs, the encoder before training, and training give on classes not trained on.

    pip install -e '.[fonts,huggingface,pretrained]'
    python -m benchmarks.small_data --fashion-mnist <folder of IDX files>
    python -m benchmarks.small_data --subsets emoji50 --modules image_folder arrays --set optimizer.lr=0.001
    python -m benchmarks.small_data --set experiment=finetune

Each run is ``run.py`` in a process of its own, with ``seed`` and ``datamodule.split_seed`` set alike, so that seeds
differ in the split too. One CSV row is kept for each run, and a run with a row is not repeated. The table has the mean
over seeds, and in brackets the largest value minus the smallest. Figures of ``raw``, ``before`` and ``val`` are of the
validation classes; ``test`` is empty with ``--set test=false``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import CONF, markdown
from benchmarks.small_sets import builders, layouts, write

FIGURES = ("map_at_r", "recall_at_1")
CELLS = [f"{part}/{figure}" for figure in FIGURES for part in ("raw", "before", "val", "test")]
MODULES = tuple(layouts(Path()))
LONGEST_ERROR = 500


class Run(NamedTuple):
    """One training.

    Attributes:
        subset: Name of the data set.
        module: Name of the data module.
        seed: Seed of the run and of its split.
        overrides: Further overrides, joined by spaces.
    """

    subset: str
    module: str
    seed: str
    overrides: str

    def command(self, data: Path, output: str) -> list[str]:
        """Command that trains on the subset in ``data`` and writes to the folder ``output``."""
        seeds = [f"seed={self.seed}", f"++datamodule.split_seed={self.seed}"]
        chosen = [f"datamodule={self.module}", *layouts(data / self.subset)[self.module], *seeds]
        quiet = ["report=false", "logger=csv", "trainer.enable_progress_bar=false", f"output_dir={output}"]
        return [sys.executable, str(CONF.parent / "run.py"), *chosen, *quiet, *self.overrides.split()]

    def measure(self, data: Path, threads: int) -> dict[str, str]:
        """Train, and return the row of the CSV file.

        Args:
            data: Folder of the subsets.
            threads: Threads of the process.
        """
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="small_data_") as folder:
            settings = os.environ | {"OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(self.command(data, folder), env=settings, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{self}: {done.stderr[-LONGEST_ERROR:]}")
            figures = json.loads((Path(folder) / "metrics.json").read_text())
        return self._asdict() | {"seconds": f"{time.perf_counter() - start:.0f}"} | flat(figures)


def flat(figures: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Cells of ``metrics.json``; what it does not have is empty.

    Example:
        >>> found = flat({"val": {"map_at_r": 0.5, "best_step": 112}})
        >>> found["val/map_at_r"], found["test/map_at_r"], found["best_step"]
        ('0.5000', '', '112')
    """
    step = figures.get("val", {}).get("best_step")
    found = {cell: figures.get(cell.split("/")[0], {}).get(cell.split("/")[1]) for cell in CELLS}
    return {cell: "" if value is None else f"{value:.4f}" for cell, value in found.items()} | {
        "best_step": "" if step is None else f"{step:.0f}"
    }


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Mean and spread over the seeds of each subset, data module and overrides."""
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["subset"], row["module"], row["overrides"]), []).append(row)
    names = [*CELLS, "best_step", "seconds"]
    lines = [[*key[:2], key[2] or "-", *(_cell(name, found) for name in names)] for key, found in groups.items()]
    return markdown(["subset", "data module", "overrides", *names], lines)


def _cell(name: str, rows: Sequence[Mapping[str, str]]) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    if len(values) < len(rows):
        return ""
    if name == "seconds":
        return f"{statistics.mean(values):.0f}"
    digits = 3 if name in CELLS else 0
    return f"{statistics.mean(values):.{digits}f} ({max(values) - min(values):.{digits}f})"


def measure_all(runs: Sequence[Run], data: Path, path: Path, jobs: int) -> list[dict[str, str]]:
    """Measure the runs that have no row yet, several at a time; return the rows of all.

    Args:
        runs: The runs.
        data: Folder of the subsets.
        path: CSV file to extend.
        jobs: Number of runs at a time.
    """
    found = {_key(row): row for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    missing = [run for run in runs if run not in found]
    with ThreadPoolExecutor(jobs) as pool, path.open("a", newline="") as file:
        for row in pool.map(lambda run: run.measure(data, threads), missing):
            writer = csv.DictWriter(file, list(row))
            if not found:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            found[_key(row)] = row
            print(f"{' '.join(_key(row))}: {row['seconds']} s, val MAP@R {row['val/map_at_r']}", flush=True)
    return [found[run] for run in runs]


def _key(row: Mapping[str, str]) -> Run:
    return Run(*(row[name] for name in Run._fields))


def main() -> None:
    """Draw the subsets, measure each with each data module and seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*builders("", "")]
    parser.add_argument("--subsets", nargs="+", choices=names, default=names)
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=["image_folder"])
    parser.add_argument("--seeds", nargs="+", default=["1", "2", "3"])
    parser.add_argument("--set", nargs="*", default=[], help="overrides of run.py")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; they share the cores")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/results/small_data"), help="folder to write to")
    parser.add_argument("--fonts", default="/usr/share/fonts")
    parser.add_argument("--fashion-mnist", default="/usr/share/datasets/fashion-mnist", help="folder of the IDX files")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    build = builders(options.fonts, options.fashion_mnist)
    for subset in options.subsets:
        if not (work / subset).exists():
            write(work / subset, build[subset]())
    overrides = " ".join(options.set)
    runs = [
        Run(subset, module, seed, overrides)
        for subset in options.subsets
        for module in options.modules
        for seed in options.seeds
    ]
    print(table(measure_all(runs, work, work / "runs.csv", options.jobs)))


if __name__ == "__main__":
    main()
