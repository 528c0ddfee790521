"""Items by their place on disk: the queries and the gallery of a search."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metric_module.errors import UserError, printable
from metric_module.inference.embedder import Embedder
from metric_module.inference.index import EmbeddingIndex
from metric_module.preprocessing import ImageInput
from metric_module.preprocessing.reading import image_suffixes


class Found(NamedTuple):
    """Items of a file or a folder, and the label of each; None where there is none."""

    items: Sequence[Any]
    labels: Sequence[str | None]


def find_items(setting: str, place: str, embedder: Embedder) -> Found:
    """List the items of a file or a folder.

    Args:
        setting: The key that names it, for messages.
        place: For images a file, or a folder whose images are found at any depth; the folder below it that holds an
            image is its label. For texts a file with a text on each line, or the text itself. For arrays a ``.npy``
            file, whose rows are the items.
        embedder: The encoder that will read them.

    Raises:
        UserError: If there is no such file, or nothing in it.
    """
    path = Path(place)
    if embedder.takes_texts:
        is_text = setting == "query" and not (_exists(path) and path.is_file())
        lines = [place] if is_text else _lines(setting, path)
        return _found(setting, place, [line for line in lines if line.strip()], "a text on each line")
    if not _exists(path):
        raise UserError(f"{setting}: no such file or folder: {place}")
    if isinstance(embedder.preprocessing, ImageInput):
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        images = [one for one in inside if _is_image(one) and not _hidden(one, path)]
        found = _found(setting, place, images, "images, such as .jpg and .png")
        folders = [one.parent.relative_to(path).as_posix() if path.is_dir() else "." for one in images]
        return found._replace(labels=[None if folder == "." else printable(folder) for folder in folders])
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{setting}: {place} is not an array in a .npy file ({str(error).splitlines()[0]})") from error
    return _found(setting, place, rows, "an array with a row for each item")


def find_gallery(place: str, embedder: Embedder, batch_size: int = 256) -> EmbeddingIndex:
    """Open a file that ``task=embed`` wrote, or embed the items of a file or a folder, and say so.

    Args:
        place: The file or the folder, see :func:`find_items`.
        embedder: The encoder.
        batch_size: Items that are embedded at once.

    Raises:
        UserError: If there is nothing to search, an item cannot be read, or the file has another distance or width.
    """
    if Path(place).suffix in {".arrow", ".parquet", ".npz"} and _exists(Path(place)):
        return EmbeddingIndex.read(place, embedder)
    items, labels = find_items("gallery", place, embedder)
    print(f"embedding {len(items):,} items of {place}", flush=True)
    return EmbeddingIndex.build(embedder, items, labels, batch_size)


def _found(setting: str, place: str, items: Sequence[Any], expected: str) -> Found:
    if not len(items):
        raise UserError(f"{setting}: {place}: expected {expected}, got none")
    return Found(items, [None] * len(items))


def _exists(path: Path) -> bool:
    """Return whether there is such a file or folder; not if the name is too long for one, as a text may be."""
    with suppress(OSError):
        return path.exists()
    return False


def _lines(setting: str, file: Path) -> list[str]:
    """Read a file with a text on each line."""
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{setting}: expected a file with a text on each line: {file} ({reason})") from error


def _is_image(path: Path) -> bool:
    """Return whether a path has the name of an image, and is no folder; a broken link is reported when it is read."""
    return path.suffix.lower() in image_suffixes() and not path.is_dir()


def _hidden(file: Path, folder: Path) -> bool:
    """Return whether a file, or a folder on the way to it, is hidden."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
