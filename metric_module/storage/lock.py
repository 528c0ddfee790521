"""Lock of a folder: one process, together with its child processes, works in it at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HELD = "LIGHTNING_TRIPLETS_HOLDS"
"""Environment variable: the folder that this process or its parent has locked."""


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[int]:
    """Lock a folder for this process and its children.

    Args:
        folder: The folder; it is created.
        wait: Whether to wait until another process releases the lock.

    Yields:
        File descriptor; a child that inherits it keeps the lock until it ends.

    Raises:
        ImportError: On a system without POSIX file locks.
        BlockingIOError: Without ``wait``, if another process has the lock.
        OSError: If the file system has no locks.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    before = os.environ.get(_HELD)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"waiting for another process that still works in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.environ[_HELD] = str(folder.resolve())
        yield lock
    finally:
        os.close(lock)
        if before is None:
            os.environ.pop(_HELD, None)
        else:
            os.environ[_HELD] = before


def is_held(folder: Path) -> bool:
    """Return whether this process or its parent has locked a folder.

    Args:
        folder: Any folder.
    """
    return os.environ.get(_HELD) == str(folder.resolve())
