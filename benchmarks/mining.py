"""Mining and loss, forward and backward: ours, the peers', a naive loop's, and the floor.

    pip install -e '.[benchmarks]'                                 # in an environment of its own: see below
    python -m benchmarks.mining                                    # the tables
    python -m benchmarks.mining --cases census_semihard census_all # some of the rows
    python -m benchmarks.mining --cases --curve                    # cost over batch, samples per class and dimension

Float32 on the CPU, shuffled labels, the same inputs for all sides, no census unless the row is about it. The floor is
the three matrix products that distances and their gradient need. One run; the sides take turns, ratios are taken round
by round, figures are medians. Memory is the peak of one call in a fresh process, beyond its inputs. Before anything is
timed, all sides must agree on the loss. Open-metric-learning asks for NumPy 1, so pip replaces a newer NumPy, and on
Python 3.13 goes without open-metric-learning. To measure it beside a newer NumPy:

    pip install --target OML --no-deps open-metric-learning==4.0.0 gdown beautifulsoup4 soupsieve pandas validators
    PYTHONPATH=OML python -m benchmarks.mining
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.mining_cases import CASES
from benchmarks.mining_curve import draw, sweep
from benchmarks.mining_measure import measure
from benchmarks.mining_memory import Settings
from benchmarks.mining_table import census_row, row, sides, tables, variants


def describe(settings: Settings) -> str:
    """Name the versions, threads and rounds of the measurement."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-metric-learning"))
    return f"{packages}, {settings.threads} threads, median of {settings.repeats} rounds"


def table(names: list[str], settings: Settings) -> str:
    """Measure the named cases and put them into tables."""
    found = []
    for name in names:
        case = CASES[name]
        measured = measure(case.work, sides(case), settings, variants(case))
        found.append((case, measured))
        print(" | ".join((row if case.bars.census is None else census_row)(case, measured)), flush=True)
    return f"{describe(settings)}\n\n{tables(found)}\n"


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), help="rows; none: no table")
    parser.add_argument("--curve", action="store_true", help="also measure the cost over B, K and D")
    parser.add_argument("--largest", type=int, default=8192, help="largest batch of the curve")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", type=float, default=8, help="GB that a side may take beyond its inputs")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.curve and find_spec("matplotlib") is None:
        parser.error("--curve: expected matplotlib to be installed (pip install matplotlib)")
    settings = Settings(options.repeats, options.threads, options.memory_limit)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.cases:
        text = table(options.cases, settings)
        (options.output / "mining.md").write_text(text)
        print(f"\n{text}")
    if options.curve:
        points = sweep(settings, options.largest, options.output / "mining_curve.csv")
        draw(points, options.output / "mining_curve.png", describe(settings))
        print(f"wrote mining_curve.csv and mining_curve.png to {options.output}")


if __name__ == "__main__":
    main()
