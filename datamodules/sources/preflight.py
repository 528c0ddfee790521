"""Checks of many image files before training, with a cache of those that were fine.

Legend: N = files.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from datamodules.messages import listed, reason_of
from datamodules.sources.paths import ManyPaths
from metric_module.preprocessing.reading import refuse_unknown_range


class State(NamedTuple):
    """State of a file.

    Attributes:
        reason: Why it cannot be used; empty if it can be.
        digest: SHA-256 of its content, hexadecimal.
    """

    reason: str
    digest: str


def inspect_image(path: str) -> State:
    """Read an image file from end to end.

    Args:
        path: The file.
    """
    try:
        content = Path(path).read_bytes()
        if not content:
            return State("empty file", "")
        with Image.open(path) as image:
            refuse_unknown_range(image)
            image.load()
    except Exception as error:  # Pillow raises many kinds
        return State(reason_of(error).replace(path, "").strip(" :'\"") or type(error).__name__, "")
    return State("", hashlib.sha256(content).hexdigest())


def inspect_images(paths: ManyPaths, cache: Path | None, workers: int = 8) -> list[State]:
    """Read many image files in parallel, and report the state of each; unchanged good files are not read again.

    Args:
        paths: The files, N.
        cache: Database of good files by absolute path, size and time of change; None: no cache.
        workers: Number of files read at a time.

    Returns:
        State of each file, N.
    """
    here = str(Path.cwd())
    every = [os.path.join(here, paths[row]) for row in range(len(paths))]  # noqa: PTH118  # called for millions of files
    stamps = [_stamp(path) for path in every]
    cached = _recall(cache)
    todo = [row for row, stamp in enumerate(stamps) if cached.get(every[row], (None,))[0] != stamp]
    quiet = not sys.stderr.isatty() or int(os.environ.get("LOCAL_RANK", "0")) > 0
    found: dict[str, tuple[str, State]] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        states = pool.map(inspect_image, [every[row] for row in todo])
        for row, state in zip(todo, track(states, "reading files", total=len(todo), disable=quiet), strict=False):
            found[every[row]] = (stamps[row], state)
    _remember(cache, found)
    return [(found.get(path) or cached[path])[1] for path in every]


def check_images(paths: ManyPaths, cache: Path | None) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Read every file, find those that would spoil training, and hash the others.

    Args:
        paths: The image of each sample, N.
        cache: See :func:`inspect_images`.

    Returns:
        A line that lists the files that cannot be read, or none, and the hash of the content of each file, int64
        ``(N,)``, 0 for those.
    """
    states = inspect_images(paths, cache)
    bad = [f"{paths[row]} ({state.reason})" for row, state in enumerate(states) if state.reason]
    hashes = np.array([int(state.digest[:15] or "0", 16) for state in states], dtype=np.int64)
    return listed("files that cannot be read", bad), hashes


def split_numbers(splits: Mapping[str, Tensor], count: int) -> Tensor:
    """Number the split of each sample from 1, in the order of the splits; 0 for a sample that is in none.

    Args:
        splits: Ids of the samples in each split, int64.
        count: Number of samples, N.

    Returns:
        Int8 ``(N,)``.

    Example:
        >>> split_numbers({"train": torch.tensor([2]), "val": torch.tensor([0])}, 3)
        tensor([2, 0, 1], dtype=torch.int8)
    """
    numbers = torch.zeros(count, dtype=torch.int8)  # (N,)
    for number, rows in enumerate(splits.values(), start=1):
        numbers[rows] = number
    return numbers


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path object for each of millions of files is slow
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _recall(cache: Path | None) -> dict[str, tuple[str, State]]:
    if cache is None or not cache.is_file():
        return {}
    with sqlite3.connect(cache) as memory:
        try:
            rows = memory.execute("select path, stamp, digest from sound").fetchall()
        except sqlite3.DatabaseError:
            return {}  # another version or a damaged file: it is rewritten
    return {path: (stamp, State("", digest)) for path, stamp, digest in rows}


def _remember(cache: Path | None, found: Mapping[str, tuple[str, State]]) -> None:
    """Store good files only: a reason such as missing permission can disappear without changing size or time.

    Files whose name is no valid text are read every time, as the database holds text alone.
    """
    good = {
        path: one for path, one in found.items() if not one[1].reason and path == path.encode(errors="ignore").decode()
    }
    rows = [(path, stamp, state.digest) for path, (stamp, state) in good.items()]
    if cache is None or not rows:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(cache, timeout=60) as memory:
            memory.execute("create table if not exists sound (path text primary key, stamp, digest)")
            memory.executemany("insert or replace into sound values (?, ?, ?)", rows)
    except (OSError, sqlite3.DatabaseError):
        return  # without a cache the next run only takes longer
