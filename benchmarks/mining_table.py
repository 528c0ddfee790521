"""Tables of ``benchmarks.mining``: every bar beside its figure."""

from __future__ import annotations

import math
from dataclasses import replace

from benchmarks.common import markdown
from benchmarks.mining_cases import Case, Work
from benchmarks.mining_measure import Measured

EVEN, CENSUS = "K=4", "census"

_TIME = ("ours ms", "floor ms", "ours/floor", "bar", "PML/ours", "bar")
HEADER = ("work", *_TIME, "our extra MB", "PML extra MB", "memory ratio", "met")
OTHERS = ("work", "OML ms", "OML/ours", "bar", "OML extra MB", "naive ms", "naive/ours", "naive extra MB")
WITH_CENSUS = ("work", "without census ms", "with census ms", "with/without", "bar", "met")


def sides(case: Case) -> tuple[str, ...]:
    """Name the sides of a case."""
    return ("ours", "pml", "oml", "naive", "floor") if case.bars.census is None else ("ours",)


def variants(case: Case) -> dict[str, Work]:
    """List the works that our side does in the same rounds for comparison, by name."""
    found = {}
    if case.bars.even is not None:
        found[EVEN] = replace(case.work, per_class=4)
    if case.bars.census is not None:
        found[CENSUS] = replace(case.work, census=True)
    return found


def tables(found: list[tuple[Case, Measured]]) -> str:
    """Write the measured cases as tables: the bars, the other sides, and the cost of the census."""
    compared = [(case, measured) for case, measured in found if case.bars.census is None]
    counted = [(case, measured) for case, measured in found if case.bars.census is not None]
    parts = [
        (HEADER, [row(*one) for one in compared]),
        (OTHERS, [other_row(*one) for one in compared]),
        (WITH_CENSUS, [census_row(*one) for one in counted]),
    ]
    return "\n\n".join(markdown(header, rows) for header, rows in parts if rows)


def row(case: Case, measured: Measured) -> list[str]:
    """Write a row of the main table."""
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
        most(bars.floor),
        number(measured.ratio("pml", "ours")) if "pml" in measured.footprints else measured.notes["pml"],
        least(bars.peer),
        ours,
        megabytes(measured, "pml"),
        share,
        met(case, measured),
    ]


def other_row(case: Case, measured: Measured) -> list[str]:
    """Write a row about the other peer and the naive loop."""
    cells = [case.title]
    for side in ("oml", "naive"):
        note = measured.notes.get(side)
        figures = (number(measured.milliseconds(side)), number(measured.ratio(side, "ours")), megabytes(measured, side))
        cells += figures if note is None else (note, "-", "-")
    return [*cells[:3], least(case.bars.oml), *cells[3:]]


def census_row(case: Case, measured: Measured) -> list[str]:
    """Write a row about the cost of the census."""
    return [
        case.title,
        number(measured.milliseconds("ours")),
        number(measured.milliseconds(CENSUS)),
        number(measured.ratio(CENSUS, "ours")),
        most(case.bars.census),
        met(case, measured),
    ]


def met(case: Case, measured: Measured) -> str:
    """Tell whether every bar of the case holds; one whose figure is missing does not."""
    bars = case.bars
    largest = [
        (measured.ratio("ours", "floor"), bars.floor),
        (memory_share(measured), bars.share),
        (measured.ratio("ours", EVEN), bars.even),
        (measured.ratio(CENSUS, "ours"), bars.census),
    ]
    smallest = [(measured.ratio("pml", "ours"), bars.peer), (measured.ratio("oml", "ours"), bars.oml)]
    held = [figure <= bar for figure, bar in largest if bar is not None]
    held += [figure >= bar for figure, bar in smallest if bar is not None]
    if bars.megabytes is not None:
        held.append("ours" in measured.footprints and measured.footprints["ours"].megabytes < bars.megabytes)
    return "yes" if "ours" in measured.footprints and all(held) else "no"


def memory_share(measured: Measured) -> float:
    """Our extra memory by the peer's; NaN if either is missing."""
    ours, peer = (measured.footprints.get(side) for side in ("ours", "pml"))
    return math.nan if ours is None or peer is None else ours.megabytes / max(peer.megabytes, 1e-3)


def megabytes(measured: Measured, side: str) -> str:
    """Extra memory of a side, or why there is none."""
    found = measured.footprints.get(side)
    return measured.notes.get(side, "-") if found is None else number(found.megabytes)


def most(bar: float | None) -> str:
    """Write an upper limit."""
    return "-" if bar is None else f"<= {bar:g}"


def least(bar: float | None) -> str:
    """Write a lower limit."""
    return "-" if bar is None else f">= {bar:g}"


def number(value: float) -> str:
    """A figure of a table, to about three digits.

    Example:
        >>> number(1234.56), number(1.234), number(0.0123), number(math.nan)
        ('1234.6', '1.23', '0.012', '-')
    """
    digits = 3 if value < 1 else 2 if value < 10 else 1
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
