"""Files that are written whole: a reader never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file to write beside another, which takes its place when the block ends well, and goes when it does not.

    Args:
        path: The file to replace; its folder is made.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write beside the file, then rename over it.

    Args:
        path: The file; its folder is made.
        text: All of its content.
    """
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
