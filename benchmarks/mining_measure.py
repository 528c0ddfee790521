"""Times of the sides of ``benchmarks.mining``, and whether they do the same work.

All sides take turns in one process, in an order that rotates; ratios are taken round by round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from benchmarks.mining_cases import Inputs, Work, inputs
from benchmarks.mining_memory import Footprint, Settings, call, footprint
from benchmarks.mining_sides import Run, build

_TURN_SECONDS, _SLOW_SECONDS, _SLOW_ROUNDS = 0.05, 5.0, 3
_TOLERANCE = 1e-4  # of the losses; float32 sums in another order


@dataclass
class Measured:
    """One work, by side.

    Attributes:
        seconds: Of each round; NaN where a slow side sat out.
        footprints: Of the sides that could run.
        notes: Why the others could not.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def milliseconds(self, side: str) -> float:
        """Median over the rounds; NaN if the side did not run."""
        return 1000 * median(self.seconds.get(side, []))

    def ratio(self, side: str, other: str) -> float:
        """Median over the rounds of one side's time by the other's; NaN if either did not run."""
        pairs = zip(self.seconds.get(side, []), self.seconds.get(other, []), strict=False)
        return median(one / two for one, two in pairs)


def measure(work: Work, sides: Iterable[str], settings: Settings, extra: dict[str, Work] | None = None) -> Measured:
    """Measure every side that can run, after checking that all of them find the same loss.

    Args:
        work: What to do.
        sides: Who does it.
        settings: How to measure.
        extra: Other works that our side does in the same rounds, for comparison, by name.

    Raises:
        RuntimeError: If two sides do not agree on the loss or its gradient.
    """
    measured = Measured()
    runs: dict[str, Callable[[], float]] = {}
    data = inputs(work)
    for side in sides:
        found = footprint(work, side, settings)
        if isinstance(found, str):
            measured.notes[side] = found
        else:
            measured.footprints[side] = found
            runs[side] = _timed(build(side, work), data)
    if work.miner != "distance_weighted":  # which is random
        check_agreement(work, measured.footprints)
    for name, other in (extra or {}).items():
        runs[name] = _timed(build("ours", other), inputs(other))
    torch.set_num_threads(settings.threads)
    measured.seconds = interleave(runs, settings.repeats)
    return measured


def check_agreement(work: Work, footprints: dict[str, Footprint]) -> None:
    """Fail unless all sides found the same loss, and a gradient of the same length.

    Raises:
        RuntimeError: Naming the sides and what they found.
    """
    told = {side: found for side, found in footprints.items() if side != "floor"}
    for side, found in told.items():
        ours = told.get("ours", found)
        for name, one, two, tolerance in (
            ("loss", ours.loss, found.loss, _TOLERANCE),
            ("norm of the gradient", ours.slope, found.slope, 10 * _TOLERANCE),
        ):
            if not math.isclose(one, two, rel_tol=tolerance):
                got = f"got {one} of ours and {two} of {side}"
                raise RuntimeError(f"{work}: expected the same {name} of all sides, {got}")


def interleave(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, in rotating order; short ones repeat within their turn, slow ones sit out."""
    numbers = {}
    rounds = {}
    for name, run in runs.items():
        seconds = run()
        if seconds < _SLOW_SECONDS:
            seconds = run()
        numbers[name] = max(1, math.ceil(_TURN_SECONDS / seconds))
        rounds[name] = repeats if seconds < _SLOW_SECONDS else min(repeats, _SLOW_ROUNDS)
    seconds_of: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times = [runs[name]() for _ in range(numbers[name])] if turn < rounds[name] else [math.nan]
            seconds_of[name].append(statistics.mean(times))
    return seconds_of


def median(values: Iterable[float]) -> float:
    """Median of what is not NaN; NaN if nothing is left.

    Example:
        >>> median([3.0, math.nan, 1.0, 2.0])
        2.0
    """
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def _timed(run: Run, data: Inputs) -> Callable[[], float]:
    return lambda: call(run, data).seconds
