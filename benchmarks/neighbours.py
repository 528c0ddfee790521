"""Class neighbourhoods against random batches: val figures of short runs, over groups of several sizes and seeds.

    pip install -e '.[fonts,text]'
    python -m benchmarks.neighbours
    python -m benchmarks.neighbours --sets emoji --groups 4 --shares 0.5

Each run is ``run.py`` in a process of its own, of the recipe of its data set but shorter. One line of JSON is kept for
each run, and a run with a line is not repeated. The table has the mean over seeds, and in brackets the largest value
minus the smallest. Test classes are never evaluated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import CONF, markdown

SETS = {
    "emoji": ("trainer.max_steps=224",),
    "glyphs": ("experiment=glyphs", "evaluation=retrieval", "trainer.max_steps=240"),
    "territories_chars": ("experiment=territories_chars", "trainer.max_steps=112", "trainer.val_check_interval=28"),
}
"""Overrides of each data set: its recipe, and the length of a run."""
EVERY = 50  # steps between two tables: the runs are shorter than the recipes
COMMON = ("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=null", "~callbacks.before_training", "test=false")
QUIET = ("report=false", "logger=csv", "trainer.enable_progress_bar=false")
COST = re.compile(r"class neighbours: (\d+) tables in ([\d.]+) s")
LONGEST_ERROR = 500


class Run(NamedTuple):
    """One training.

    Attributes:
        data: Name of the data set, of :data:`SETS`.
        group: Classes in a group; 0: no neighbourhoods.
        share: Share of a batch's classes that come in groups.
        seed: Seed of the run; the split is always the same.
    """

    data: str
    group: int
    share: float
    seed: int

    def command(self, output: str, fonts: str) -> list[str]:
        """Command that trains, with the run's files in the folder ``output``."""
        settings = f"{{group: {self.group}, share: {self.share}, every: {EVERY}}}" if self.group else "null"
        chosen = [f"seed={self.seed}", f"++datamodule.neighbours={settings}", f"hydra.run.dir={output}"]
        of_fonts = [f"datamodule.fonts={fonts}"] if self.data == "glyphs" else []
        return [sys.executable, str(CONF.parent / "run.py"), *SETS[self.data], *COMMON, *QUIET, *of_fonts, *chosen]

    def measure(self, fonts: str) -> dict[str, Any]:
        """Train, and return settings, figures and seconds.

        Args:
            fonts: Folder of the fonts.
        """
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="neighbours_") as folder:
            done = subprocess.run(self.command(folder, fonts), capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{self}: {done.stderr[-LONGEST_ERROR:]}")
            figures = json.loads((Path(folder) / "metrics.json").read_text())["val"]
            cost = COST.search((Path(folder) / "run.log").read_text())
        kept = {name: figures[name] for name in ("map_at_r", "recall_at_1", "best_step")}
        tables, spent = (int(cost[1]), float(cost[2])) if cost else (0, 0.0)
        return self._asdict() | kept | {"tables": tables, "spent": spent, "seconds": time.perf_counter() - start}


def measure_all(runs: Sequence[Run], path: Path, fonts: str) -> list[dict[str, Any]]:
    """Measure the runs that have no line yet, one at a time; return the rows of all.

    Args:
        runs: The runs.
        path: File of JSON lines to extend.
        fonts: Folder of the fonts.
    """
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found = {key_of(row): row for row in rows}
    for run in runs:
        if run not in found:
            row = found[run] = run.measure(fonts)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{run}: val MAP@R {row['map_at_r']:.4f}, {row['seconds']:.0f} s", flush=True)
    return [found[run] for run in runs]


def key_of(row: Mapping[str, Any]) -> Run:
    """Return the run that a row is of."""
    return Run(*(row[name] for name in Run._fields))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Mean and spread over the seeds of each data set and setting, and the share of the time that tables took."""
    settings: dict[tuple[str, int, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        settings.setdefault((row["data"], row["group"], row["share"]), []).append(row)
    lines = []
    for (data, group, share), found in settings.items():
        cells = [spread([row[name] for row in found]) for name in ("map_at_r", "recall_at_1")]
        cost = sum(row["spent"] for row in found) / sum(row["seconds"] for row in found)
        seconds = f"{statistics.mean(row['seconds'] for row in found):.0f}"
        shown = [str(group), f"{share:g}"] if group else ["off", ""]
        lines.append([data, *shown, *cells, seconds, f"{cost:.1%}" if group else "", str(len(found))])
    return markdown(["data", "group", "share", "MAP@R", "R@1", "seconds", "of them tables", "seeds"], lines)


def spread(values: Sequence[float]) -> str:
    """Write the mean, and in brackets the largest value minus the smallest.

    Example:
        >>> spread([0.5, 0.75])
        '0.625 (0.250)'
    """
    return f"{statistics.mean(values):.3f} ({max(values) - min(values):.3f})"


def main() -> None:
    """Measure every data set with every setting and seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--groups", nargs="+", type=int, default=[0, 2, 4, 8], help="0: no neighbourhoods")
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--fonts", default="/usr/share/fonts")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/neighbours.jsonl"), help="JSON lines")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs = [
        Run(data, group, share, seed)
        for data in options.sets
        for seed in options.seeds
        for group in options.groups
        for share in (options.shares if group else [1.0])
    ]
    print(table(measure_all(runs, options.results.resolve(), options.fonts)))


if __name__ == "__main__":
    main()
