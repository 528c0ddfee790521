"""Settings of a sweep: means and intervals over repetitions, and the command that repeats a setting."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from metric_module.config.program import command
from metric_module.report.closed_set import of_figure, titled
from metric_module.sweeps.ledger import REPEATED, Job, swept_keys, values

CONFIDENCE = 0.95
_LONG = re.compile(r"\d+\.\d{8,}(?:e[+-]?\d+)?")


class Estimate(NamedTuple):
    """The mean of a figure over repetitions.

    Attributes:
        n: Number of repetitions.
        mean: The mean.
        half: Half the width of the 95 % interval of the mean; None for a single repetition.
    """

    n: int
    mean: float
    half: float | None


class Setting(NamedTuple):
    """Jobs that differ only in seed or fold.

    Attributes:
        choice: Value of each other swept key.
        jobs: The jobs by number.
    """

    choice: dict[str, str]
    jobs: list[Job]

    @property
    def name(self) -> str:
        """The choice as words, ``margin=0.1 miner=semihard``, with the numbers of a search rounded."""
        return short(" ".join(f"{key}={value}" for key, value in self.choice.items())) or "the only setting"

    def estimate(self, figure: str) -> Estimate | None:
        """Estimate a figure from the jobs that have it; None if none has."""
        found = [job.figures[figure] for job in self.jobs if figure in job.figures]
        return estimate(found) if found else None

    def titled(self, text: str, figure: str) -> str:
        """Append ``closed set`` in brackets if a job has the figure of classes that were trained on."""
        closed = (made for job in self.jobs if (made := titled(text, of_figure(figure, job.figures))) != text)
        return next(closed, text)

    def start(self, stage: str, monitor: str) -> Estimate | None:
        """Estimate the monitored figure of validation from before training, ``before`` or ``raw``; None without one."""
        return self.estimate(f"{stage}/{monitor.removeprefix('val/')}")


def estimate(found: Sequence[float]) -> Estimate:
    r"""Compute mean and interval, :math:`\bar x \pm t_{0.975, n-1} s / \sqrt n` with Student's t.

    Args:
        found: The values; at least one.

    Example:
        >>> estimate([1.0, 2.0, 3.0])
        Estimate(n=3, mean=2.0, half=2.484...)
    """
    n = len(found)
    half = student(n - 1) * stdev(found) / math.sqrt(n) if n > 1 else None
    return Estimate(n, fmean(found), half)


def student(freedom: int) -> float:
    """Compute the t for which Student's T lies between -t and t with probability 0.95.

    Args:
        freedom: Degrees of freedom, at least 1.

    Example:
        >>> f"{student(1):.3f} {student(9):.3f}"
        '12.706 2.262'
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Compute P(-t < T < t): Abramowitz and Stegun 1964, equations 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= power / (power + 1) * cosine * cosine
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def settings(jobs: Sequence[Job]) -> list[Setting]:
    """Group the jobs that differ only in seed or fold, in the order of their first job."""
    keys = [key for key in swept_keys(jobs) if not is_repeated(key)]
    found: dict[tuple[str, ...], Setting] = {}
    for job in jobs:
        row = values(job)
        choice = {key: row[key] for key in keys if key in row}
        found.setdefault(tuple(row.get(key, "") for key in keys), Setting(choice, [])).jobs.append(job)
    return list(found.values())


def is_repeated(key: str) -> bool:
    """Return whether the values of a key repeat a setting, as seeds and folds do."""
    return key.lstrip("+") in REPEATED


def command_of(setting: Setting, options: Sequence[str] = ()) -> str:
    """Write the command that trains a setting again, once for each of its seeds or folds, and evaluates test.

    Args:
        setting: The setting.
        options: Options of Hydra's command line, such as ``--config-dir``.

    Example:
        >>> jobs = [Job(n, "", ("margin=0.1", f"seed={n}"), "done") for n in (1, 2)]
        >>> command_of(Setting({"margin": "0.1"}, jobs))
        'lightning-triplets -m margin=0.1 seed=1,2 test=true'
    """
    rows = [values(job) for job in setting.jobs]
    words = []
    for word in setting.jobs[0].overrides:
        key, equals, value = word.partition("=")
        if is_repeated(key):
            value = ",".join(dict.fromkeys(row[key] for row in rows if key in row))
        if key.lstrip("+") != "test":
            words.append(f"{key}{equals}{value}")
    many = ["-m"] if len(setting.jobs) > 1 else []
    return f"{command()} {shlex.join([*options, *many, *words, 'test=true'])}"


def resume_command(folder: Path) -> str:
    """Write the command that runs the missing and failed jobs of a sweep.

    Args:
        folder: The folder of the sweep.

    Example:
        >>> resume_command(Path("sweeps/my sweep"))
        "lightning-triplets 'resume_sweep=sweeps/my sweep'"
    """
    return f"{command()} {shlex.quote(f'resume_sweep={folder}')}"


def short(text: str) -> str:
    """Round the numbers in a text that have more than seven decimals, as those of a search, to four digits.

    Example:
        >>> short("margin=0.34781928374 optimizer.lr=0.0012")
        'margin=0.3478 optimizer.lr=0.0012'
    """
    return _LONG.sub(lambda found: f"{float(found[0]):.4g}", text)


def to_number(text: str | None) -> float | None:
    """Read a finite number; None if the text is not one.

    Example:
        >>> to_number("1e-3"), to_number("nan"), to_number("hard"), to_number(None)
        (0.001, None, None, None)
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
