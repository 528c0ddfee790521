"""Mining and loss, forward and backward: ours, the peers', a naive loop's, and the floor.

    pip install -e '.[benchmarks]'
    python -m benchmarks.mining                      # the table
    python -m benchmarks.mining --cases --curve      # cost over batch, samples per class and dimension: CSV and plot

Float32 on the CPU, shuffled labels, no census, the same inputs for all sides. The floor is the three matrix products
that distances and their gradient need. One run; the sides take turns, ratios are taken round by round, figures are
medians. Memory is the peak of one call in a fresh process, beyond its inputs. Before anything is timed, all sides must
agree on the loss. Open-metric-learning asks for an old NumPy; to have it measured as well, put it beside:

    pip install --target OML --no-deps open-metric-learning==4.0.0 gdown beautifulsoup4 soupsieve pandas validators
    PYTHONPATH=OML python -m benchmarks.mining
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.common import markdown
from benchmarks.mining_cases import CASES, Case
from benchmarks.mining_curve import draw, sweep
from benchmarks.mining_measure import Measured, measure
from benchmarks.mining_memory import Settings

_TIME = ("ours ms", "floor ms", "ours/floor", "bar", "PML/ours", "bar")
HEADER = ("work", *_TIME, "our extra MB", "PML extra MB", "memory ratio", "met")
OTHERS = ("work", "OML ms", "OML/ours", "OML extra MB", "naive ms", "naive/ours", "naive extra MB")
EVEN = "K=4"


def run_case(case: Case, settings: Settings) -> Measured:
    """Measure all sides of one row."""
    extra = None if case.bars.even is None else {EVEN: replace(case.work, per_class=4)}
    return measure(case.work, ("ours", "pml", "oml", "naive", "floor"), settings, extra)


def row(case: Case, measured: Measured) -> list[str]:
    """A row of the main table, every bar beside its figure."""
    bars, title = case.bars, case.title
    if bars.even is not None:
        title += f" ({measured.ratio('ours', EVEN):.2f}x the time of {EVEN}, bar <= {bars.even:g}x)"
    ours = megabytes(measured, "ours") + ("" if bars.megabytes is None else f" (bar < {bars.megabytes:g})")
    share = number(memory_share(measured)) + ("" if bars.share is None else f" (bar <= {bars.share:g})")
    return [
        title,
        number(measured.milliseconds("ours")),
        number(measured.milliseconds("floor")),
        number(measured.ratio("ours", "floor")),
        "-" if bars.floor is None else f"<= {bars.floor:g}",
        number(measured.ratio("pml", "ours")) if "pml" in measured.footprints else measured.notes["pml"],
        "-" if bars.peer is None else f">= {bars.peer:g}",
        ours,
        megabytes(measured, "pml"),
        share,
        "yes" if met(case, measured) else "no",
    ]


def met(case: Case, measured: Measured) -> bool:
    """Whether every bar of the case holds; one whose figure is missing does not."""
    bars = case.bars
    most = [
        (measured.ratio("ours", "floor"), bars.floor),
        (memory_share(measured), bars.share),
        (measured.ratio("ours", EVEN), bars.even),
    ]
    held = [figure <= bar for figure, bar in most if bar is not None]
    if bars.peer is not None:
        held.append(measured.ratio("pml", "ours") >= bars.peer)
    if bars.megabytes is not None:
        held.append("ours" in measured.footprints and measured.footprints["ours"].megabytes < bars.megabytes)
    return "ours" in measured.footprints and all(held)


def other_row(case: Case, measured: Measured) -> list[str]:
    """A row about the sides that have no bar."""
    cells = [case.title]
    for side in ("oml", "naive"):
        note = measured.notes.get(side)
        figures = (number(measured.milliseconds(side)), number(measured.ratio(side, "ours")), megabytes(measured, side))
        cells += figures if note is None else (note, "-", "-")
    return cells


def memory_share(measured: Measured) -> float:
    """Our extra memory by the peer's; NaN if either is missing."""
    ours, peer = (measured.footprints.get(side) for side in ("ours", "pml"))
    return math.nan if ours is None or peer is None else ours.megabytes / max(peer.megabytes, 1e-3)


def megabytes(measured: Measured, side: str) -> str:
    """Extra memory of a side, or why there is none."""
    found = measured.footprints.get(side)
    return measured.notes.get(side, "-") if found is None else number(found.megabytes)


def number(value: float) -> str:
    """A figure of a table, to about three digits.

    Example:
        >>> number(1234.56), number(1.234), number(0.0123), number(math.nan)
        ('1234.6', '1.23', '0.012', '-')
    """
    digits = 3 if value < 1 else 2 if value < 10 else 1
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def describe(settings: Settings) -> str:
    """Name the versions, threads and rounds of the measurement."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-metric-learning"))
    return f"{packages}, {settings.threads} threads, median of {settings.repeats} rounds"


def table(names: list[str], settings: Settings) -> str:
    """Measure the named cases and put them into two tables."""
    rows, others = [], []
    for name in names:
        measured = run_case(CASES[name], settings)
        rows.append(row(CASES[name], measured))
        others.append(other_row(CASES[name], measured))
        print(" | ".join(rows[-1]), flush=True)
    return f"{describe(settings)}\n\n{markdown(HEADER, rows)}\n\n{markdown(OTHERS, others)}\n"


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
        parser.error("--curve: expected matplotlib to be installed (pip install -e '.[benchmarks]')")
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
