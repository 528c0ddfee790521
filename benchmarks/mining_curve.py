"""Cost of semi-hard mining over the batch, the samples of each class and the dimension: a CSV and a plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.mining_cases import Work
from benchmarks.mining_measure import Measured, measure
from benchmarks.mining_memory import Settings

SIDES = {"ours": "lightning-triplets", "pml": "pytorch-metric-learning", "floor": "floor: the distance products"}
_STYLES = {"ours": ("#0b5fa5", "o"), "pml": ("#c8501e", "s"), "floor": ("#6b6b6b", "^")}
_LABELS = {"batch": "batch B", "per_class": "samples per class K", "dimension": "embedding size D"}
_QUANTITIES = {"milliseconds": "forward + backward, ms", "megabytes": "extra memory, MB"}


class Point(NamedTuple):
    """One side at one place of one sweep; NaN, and a note, if it could not run."""

    sweep: str
    batch: int
    per_class: int
    dimension: int
    side: str
    milliseconds: float
    megabytes: float
    note: str


def works(largest: int) -> dict[str, list[Work]]:
    """List the workloads of each sweep: B from 128 on with K=4 and D=128; K and D at B=1024, or ``largest`` if less."""
    fixed = min(1024, largest)
    return {
        "batch": [Work("semihard", 1 << power) for power in range(7, 14) if 1 << power <= largest],
        "per_class": [Work("semihard", fixed, per_class=1 << power) for power in range(1, 7)],
        "dimension": [Work("semihard", fixed, dimension=1 << power) for power in range(5, 11)],
    }


def sweep(settings: Settings, largest: int, path: Path) -> list[Point]:
    """Measure every sweep, writing each point to the CSV at ``path`` as soon as it is known."""
    return record(works(largest), cache(lambda work: measure(work, SIDES, settings)), path)


def record(sweeps: dict[str, list[Work]], measured: Callable[[Work], Measured], path: Path) -> list[Point]:
    """All points of the sweeps, also written to ``path``."""
    points: list[Point] = []
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        for name, places in sweeps.items():
            for work in places:
                new = list(_points(name, work, measured(work)))
                writer.writerows(new)
                file.flush()
                print(*new, sep="\n", flush=True)
                points += new
    return points


def _points(name: str, work: Work, measured: Measured) -> Iterable[Point]:
    for side in SIDES:
        found = measured.footprints.get(side)
        megabytes = math.nan if found is None else round(found.megabytes, 2)
        milliseconds = round(measured.milliseconds(side), 3)
        note = measured.notes.get(side, "")
        yield Point(name, work.batch, work.per_class or 0, work.dimension, side, milliseconds, megabytes, note)


def draw(points: list[Point], path: Path, caption: str) -> None:
    """Time and memory, log-log, a column for each sweep."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(point.sweep for point in points))
    figure, axes = plt.subplots(2, len(names), figsize=(4.4 * len(names), 7), squeeze=False, sharey="row")
    for column, name in enumerate(names):
        of_sweep = [point for point in points if point.sweep == name]
        for line, quantity in enumerate(_QUANTITIES):
            _panel(axes[line][column], of_sweep, name, quantity)
        axes[0][column].set_title(_fixed(of_sweep, name))
    for line, label in enumerate(_QUANTITIES.values()):
        axes[line][0].set_ylabel(label)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(SIDES), frameon=False, bbox_to_anchor=(0.5, 0.95))
    figure.suptitle("Semi-hard mining and loss, exact", y=0.985, fontsize=13)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=9, color="#444444")
    figure.tight_layout(rect=(0, 0.03, 1, 0.92))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, points: list[Point], name: str, quantity: str) -> None:
    """One quantity of all sides over one sweep."""
    for side, label in SIDES.items():
        colour, marker = _STYLES[side]
        found = [point for point in points if point.side == side and getattr(point, quantity) > 0]
        places, values = [getattr(point, name) for point in found], [getattr(point, quantity) for point in found]
        axis.plot(places, values, color=colour, marker=marker, markersize=5, linewidth=1.8, label=label)
        missing = next((point for point in points if point.side == side and point.note), None)
        if missing is not None and found:
            axis.annotate(missing.note, (places[-1], values[-1]), (0, 6), textcoords="offset points", fontsize=8)
    ticks = sorted({getattr(point, name) for point in points})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xlabel(_LABELS[name])
    axis.grid(True, which="major", color="#dddddd", linewidth=0.8)


def _fixed(points: list[Point], name: str) -> str:
    """Name what is constant within a sweep, for its title."""
    letters = {"batch": "B", "per_class": "K", "dimension": "D"}
    return ", ".join(f"{letter}={getattr(points[0], field)}" for field, letter in letters.items() if field != name)
