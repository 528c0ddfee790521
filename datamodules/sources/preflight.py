"""Many files without many objects, and what is wrong with them.

Legend: N files.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from datamodules.sampling.dataset import listed
from metric_module.errors import UserError

CODEC = ("utf-8", "surrogatepass")
"""Takes every string there is, also names of files that are no text."""


class ManyPaths(Protocol):
    """Paths by number, wherever they are kept."""

    def __len__(self) -> int:
        """Number of paths."""

    def __getitem__(self, row: int, /) -> str:
        """One path."""


class Paths:
    """Paths, or other strings, in two arrays, which worker processes share instead of copying them one by one.

    Args:
        names: The paths; any strings.

    Example:
        >>> paths = Paths(["a/1.png", "b/2.png"])
        >>> len(paths), paths[1]
        (2, 'b/2.png')
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode(*CODEC) for name in names]
        sizes = torch.tensor([0, *map(len, encoded)])
        self._ends = sizes.cumsum(0)  # (N + 1,)
        self._bytes = torch.frombuffer(bytearray(b"".join(encoded) or b" "), dtype=torch.uint8)

    def __len__(self) -> int:
        """Number of paths."""
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        """One path."""
        return str(self._bytes[int(self._ends[row]) : int(self._ends[row + 1])].numpy().tobytes(), *CODEC)


def check_given(setting: str, path: str | None) -> None:
    """Accept a path of one or more characters: an empty one would mean the current folder.

    Args:
        setting: Its full name.
        path: The path, or None.

    Raises:
        UserError: It is empty.
    """
    if path is not None and not str(path).strip():
        raise UserError(f"{setting}: expected a path, got {path!r}")


class State(NamedTuple):
    """What is known of a file.

    Attributes:
        reason: Why it cannot be used; empty if it can.
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return State(reason.replace(path, "").strip(" :'\"") or type(error).__name__, "")
    return State("", hashlib.sha256(content).hexdigest())


def refuse_unknown_range(image: Image.Image) -> None:
    """Accept an image whose mode says what white is.

    Args:
        image: As it was opened, so that its format is known.

    Raises:
        UserError: Its pixels are floats, or integers of 32 bits.
    """
    sixteen_bits = image.mode == "I" and image.format in {"PNG", "PPM"}  # Pillow's mode for these
    if image.mode == "F" or (image.mode == "I" and not sixteen_bits):
        raise UserError(f"expected pixels of 8 or 16 bits, got Pillow's mode {image.mode}: convert the image")


def inspect_images(paths: ManyPaths, cache: Path | None, workers: int = 8) -> list[State]:
    """What is wrong with each of many image files, read in parallel; sound ones that did not change are not read again.

    Args:
        paths: The files, N.
        cache: A file that remembers sound files by absolute path, size and time of change; None remembers nothing.
        workers: Files that are read at a time.

    Returns:
        N states.
    """
    here = str(Path.cwd())
    every = [os.path.join(here, paths[row]) for row in range(len(paths))]  # noqa: PTH118  # for each of millions
    stamps = [_stamp(path) for path in every]
    known = _recall(cache)
    todo = [row for row, stamp in enumerate(stamps) if known.get(every[row], (None,))[0] != stamp]
    quiet = not sys.stderr.isatty() or int(os.environ.get("LOCAL_RANK", "0")) > 0
    found: dict[str, tuple[str, State]] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        states = pool.map(inspect_image, [every[row] for row in todo])
        for row, state in zip(todo, track(states, "reading files", total=len(todo), disable=quiet), strict=False):
            found[every[row]] = (stamps[row], state)
    _remember(cache, found)
    return [(found.get(path) or known[path])[1] for path in every]


def bad_images(paths: ManyPaths, splits: Mapping[str, Tensor], cache: Path | None) -> list[str]:
    """Find every file that would spoil training or its figures.

    Args:
        paths: The image of each sample, N.
        splits: Ids of the samples of each split, int64.
        cache: See :func:`inspect_images`.

    Returns:
        A line that lists the files that cannot be read, and one of the files whose very content is in two splits.
    """
    states = inspect_images(paths, cache)
    bad = [f"{paths[row]} ({state.reason})" for row, state in enumerate(states) if state.reason]
    owner = owners(splits, len(paths))
    places: dict[str, list[int]] = {}
    for row, (state, name) in enumerate(zip(states, owner, strict=True)):
        if state.digest and name:
            places.setdefault(state.digest, []).append(row)
    twice = [
        " = ".join(f"{paths[row]} ({owner[row]})" for row in rows)
        for rows in places.values()
        if len({owner[row] for row in rows}) > 1
    ]
    return [*listed("files that cannot be read", bad), *listed("files with the same content in two splits", twice)]


def owners(splits: Mapping[str, Tensor], count: int) -> list[str]:
    """The split of each sample, by id; of one that is in none, nothing.

    Args:
        splits: Ids of the samples of each split, int64.
        count: How many samples there are.

    Example:
        >>> owners({"train": torch.tensor([2]), "val": torch.tensor([0])}, 3)
        ['val', '', 'train']
    """
    number = torch.zeros(count, dtype=torch.int8)  # (N,)
    for place, rows in enumerate(splits.values(), start=1):
        number[rows] = place
    names = ["", *splits]
    return [names[place] for place in number.tolist()]


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path object for each of millions is what this avoids
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
            return {}  # of another kind: it will be written anew
    return {path: (stamp, State("", digest)) for path, stamp, digest in rows}


def _remember(cache: Path | None, found: Mapping[str, tuple[str, State]]) -> None:
    """Keep what is sound; what is wrong with a file may change without a trace, such as who may read it."""
    rows = [(path, stamp, state.digest) for path, (stamp, state) in found.items() if not state.reason]
    if cache is None or not rows:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(cache, timeout=60) as memory:
            memory.execute("create table if not exists sound (path text primary key, stamp, digest)")
            memory.executemany("insert or replace into sound values (?, ?, ?)", rows)
    except (OSError, sqlite3.DatabaseError):
        return  # a cache that cannot be written costs time, nothing else
