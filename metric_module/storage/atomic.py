"""Atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Replace a file at the end of the block; if the block fails, the old file is kept.

    Args:
        path: The file to replace; its folder is created.

    Yields:
        A temporary file in the same folder to write to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically.

    Args:
        path: The file; its folder is created.
        text: The whole content.
    """
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
