"""Atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metric_module.errors import UserError

_PART = re.compile(
    r"\.([^/]+\.ckpt|config\.yaml|metrics\.(json|csv)|census\.(json|html)|report\.html|encoder\.safetensors"
    r"|embeddings\.(arrow|parquet|npz)|encoder\.onnx|model|search\.(csv|html))\.\d+"
)
"""Names of the temporary files of a run, see :func:`beside`."""


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Replace a file at the end of the block; if the block fails, the old file is kept.

    Args:
        path: The file to replace, or a folder to create; the folder that it is in is created.

    Yields:
        A temporary path in the same folder, for a file or a folder that the block writes.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically.

    Args:
        path: The file; its folder is created.
        text: The whole content.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        with beside(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path.name}: cannot write {path} ({error.strerror or error})") from error


def without_nan(values: Any) -> Any:
    """Replace NaN and infinity by None, because JSON has neither.

    Args:
        values: Dicts, lists and scalars.

    Example:
        >>> without_nan({"loss": float("nan"), "queries": 3.0})
        {'loss': None, 'queries': 3.0}
    """
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote; none may still work there.

    Args:
        folder: Folder of a run.
    """
    for path in (*folder.glob(".*"), *folder.glob("checkpoints/.*")):
        if _PART.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
