"""Paths of many files without many objects, reading of lists, and the folder of caches.

Legend: N = files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch

from metric_module.errors import UserError

CODEC = ("utf-8", "surrogatepass")
"""Encodes every string, also file names that are not valid text."""


class ManyPaths(Protocol):
    """Paths by number, however they are stored."""

    def __len__(self) -> int:
        """Return the number of paths."""

    def __getitem__(self, row: int, /) -> str:
        """Return one path."""


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
        """Return the number of paths."""
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        """Return one path."""
        return str(self._bytes[int(self._ends[row]) : int(self._ends[row + 1])].numpy().tobytes(), *CODEC)


def cache_folder(given: str | None) -> Path:
    """Return the folder of caches: the given one, or ``lightning-triplets`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lightning-triplets" if given is None else Path(given)


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file in UTF-8.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, or cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error})") from None
