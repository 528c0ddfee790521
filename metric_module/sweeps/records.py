"""The files of a job, ``job.json`` and ``metrics.json``, read with checked shapes: a damaged file is no result."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from os import walk
from pathlib import Path
from typing import Any

from metric_module.errors import printable

JOB = "job.json"
METRICS = "metrics.json"


def job_folders(sweep: Path) -> Iterator[Path]:
    """List the folders with a ``job.json``, in order of their names; nothing inside such a folder is another job.

    Args:
        sweep: The folder of the sweep.
    """
    for folder, names, files in walk(sweep):
        names.sort()
        if JOB in files and Path(folder) != sweep:
            names.clear()
            yield Path(folder)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read ``job.json``; None if there is none, or if it is damaged, which is told once.

    A file of that name that no job has written is passed over: the folder of a job that has begun has ``.hydra``.

    Args:
        folder: The folder of a job.
    """
    found, problem = _load(folder / JOB, _JOB)
    if problem and (folder / ".hydra").is_dir():
        _tell(f"{folder / JOB} {problem}: this job counts as missing")
    return found


def read_figures(folder: Path) -> dict[str, float] | None:
    """Read the finite figures of ``metrics.json``, ``{"val/map_at_r": ...}``; none are in a folder without the file.

    Args:
        folder: The folder of a job.

    Returns:
        The figures, or None if the file is damaged, which is told once.
    """
    found, problem = _load(folder / METRICS, {})
    rows = {} if found is None else found
    if not all(isinstance(row, dict) and all(map(_is_figure, row.values())) for row in rows.values()):
        problem = "does not hold numbers by set and name"
    if problem:
        _tell(f"{folder / METRICS} {problem}: this job counts as missing")
        return None
    flat = {f"{stage}/{name}": value for stage, row in rows.items() for name, value in row.items()}
    return {name: float(value) for name, value in flat.items() if value is not None and math.isfinite(value)}


def is_texts(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _load(path: Path, shape: dict[str, Callable[[Any], bool]]) -> tuple[dict[str, Any] | None, str]:
    """Read a mapping whose values have a shape, or say what is wrong, in words that follow the name of the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, RecursionError) as error:
        return None, f"cannot be read ({type(error).__name__})"
    if not isinstance(found, dict):
        return None, f"holds a {type(found).__name__}, not a mapping"
    wrong = [key for key, fits in shape.items() if key not in found or not fits(found[key])]
    return (None, f"has no valid {wrong[0]!r}") if wrong else (found, "")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_figure(value: Any) -> bool:
    """Return whether a value is null or a number that a float can hold; NaN is one."""
    if value is None or type(value) is float:
        return True
    return type(value) is int and abs(value) < 1 << 1000


_JOB: dict[str, Callable[[Any], bool]] = {
    "job": _is_count,
    "overrides": is_texts,
    "exit_code": lambda value: value is None or type(value) is int,
    "seconds": lambda value: _is_figure(value) and (value is None or math.isfinite(value)),
    "reason": lambda value: isinstance(value, str),
}


@cache
def _tell(problem: str) -> None:
    """Print a line once: the files are read after every job."""
    print(printable(problem), file=sys.stderr, flush=True)
