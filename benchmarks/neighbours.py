"""Class neighbourhoods against random batches: val figures of short runs, over groups of several sizes and seeds.

    pip install -e '.[fonts,text]'
    python -m benchmarks.neighbours
    python -m benchmarks.neighbours --sets emoji --groups 4 --shares 0.5
    python -m benchmarks.neighbours --sets emoji --times 2 --every 100

Each run is the recipe of its data set but shorter, and its figures are those of the validation classes after the last
step. One line of JSON is kept for each run, and a run with a line is not repeated. The table has the mean over seeds,
and in brackets the largest value minus the smallest. Test classes are never evaluated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common import markdown, recipe
from metric_module.callbacks import ClassNeighbours


class Recipe(NamedTuple):
    """Recipe of a data set.

    Attributes:
        overrides: Its overrides.
        steps: Length of a run.
    """

    overrides: tuple[str, ...]
    steps: int


RECIPES = {
    "emoji": Recipe((), 224),
    "glyphs": Recipe(("experiment=glyphs",), 240),
    "territories_chars": Recipe(("experiment=territories_chars",), 112),
}
COMMON = ("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=null", "evaluation=retrieval", "report=false")


class Run(NamedTuple):
    """One training.

    Attributes:
        data: Name of the data set, of :data:`RECIPES`.
        group: Classes in a group; 0: no neighbourhoods.
        share: Share of a batch's classes that come in groups.
        every: Steps between two tables.
        steps: Length of the run.
        seed: Seed of the run; the split is always the same.
    """

    data: str
    group: int
    share: float
    every: int
    steps: int
    seed: int

    def overrides(self, fonts: str) -> list[str]:
        """Overrides of the run.

        Args:
            fonts: Folder of the fonts.
        """
        near = f"{{group: {self.group}, share: {self.share}, every: {self.every}}}" if self.group else "null"
        length = [f"trainer.max_steps={self.steps}", f"trainer.val_check_interval={self.steps}"]  # one validation
        of_fonts = [f"datamodule.fonts={fonts}"] if self.data == "glyphs" else []
        return [
            *RECIPES[self.data].overrides,
            *COMMON,
            *length,
            *of_fonts,
            f"seed={self.seed}",
            f"++datamodule.neighbours={near}",
        ]

    def measure(self, fonts: str, read: dict[str, Any]) -> dict[str, Any]:
        """Train, and return settings, figures and seconds.

        Args:
            fonts: Folder of the fonts.
            read: Data sets that are read already, by name; this one is added.
        """
        parts, near = recipe(self.overrides(fonts)), ClassNeighbours()
        data: Any = parts.datamodule
        if self.data in read:
            data.__dict__["samples"] = read[self.data]
        parts.trainer.callbacks.append(near)  # type: ignore[attr-defined]
        start = time.perf_counter()
        parts.trainer.fit(parts.module, datamodule=data)
        seconds = time.perf_counter() - start
        read[self.data] = data.samples
        figures = {name: float(parts.trainer.callback_metrics[f"val/{name}"]) for name in ("map_at_r", "recall_at_1")}
        return self._asdict() | figures | {"tables": near.tables, "spent": near.seconds, "seconds": seconds}


def measure_all(runs: Sequence[Run], path: Path, fonts: str) -> list[dict[str, Any]]:
    """Measure the runs that have no line yet, one at a time; return the rows of all.

    Args:
        runs: The runs.
        path: File of JSON lines to extend.
        fonts: Folder of the fonts.
    """
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found, read = {key_of(row): row for row in rows}, dict[str, Any]()
    for run in runs:
        if run not in found:
            row = found[run] = run.measure(fonts, read)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{run}: val MAP@R {row['map_at_r']:.4f}, {row['seconds']:.0f} s", flush=True)
    return [found[run] for run in runs]


def key_of(row: Mapping[str, Any]) -> Run:
    """Return the run that a row is of."""
    return Run(*(row[name] for name in Run._fields))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Mean and spread over the seeds of each data set and setting, and the share of the time that tables took."""
    settings: dict[tuple[str, int, int, float], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: list(RECIPES).index(row["data"])):
        settings.setdefault((row["data"], row["steps"], row["group"], row["share"]), []).append(row)
    lines = []
    for (data, steps, group, share), found in settings.items():
        cells = [spread([row[name] for row in found]) for name in ("map_at_r", "recall_at_1")]
        cost = sum(row["spent"] for row in found) / sum(row["seconds"] for row in found)
        shown = [str(group), f"{share:g}"] if group else ["off", ""]
        lines.append([f"`{data}`", str(steps), *shown, *cells, f"{cost:.1%}" if group else "", str(len(found))])
    return markdown(["data", "steps", "group", "share", "MAP@R", "R@1", "time for tables", "seeds"], lines)


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
    parser.add_argument("--sets", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--groups", nargs="+", type=int, default=[0, 2, 4, 8], help="0: no neighbourhoods")
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0])
    parser.add_argument("--every", type=int, default=50, help="steps between two tables")
    parser.add_argument("--times", type=int, default=1, help="factor on the length of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fonts", default="/usr/share/fonts")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/neighbours.jsonl"), help="JSON lines")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    runs = [
        Run(data, group, share, options.every if group else 0, options.times * RECIPES[data].steps, seed)
        for seed in options.seeds
        for data in options.sets
        for group in options.groups
        for share in (options.shares if group else [1.0])
    ]
    print(table(measure_all(runs, options.results, options.fonts)))


if __name__ == "__main__":
    main()
