"""A gallery to search in: a folder of images, or a file of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from metric_module.errors import UserError
from metric_module.inference.embedder import Embedder
from metric_module.inference.index import EmbeddingIndex
from metric_module.preprocessing.reading import image_suffixes


class Gallery(NamedTuple):
    """A gallery: its index, and the image files of its items by position, empty if they are not known."""

    index: EmbeddingIndex
    pictures: list[Path]


def read_gallery(embedder: Embedder, path: str | Path) -> Gallery:
    """Read a gallery; images in a subfolder have its name as their label.

    Args:
        embedder: Embeds the images, and later the queries.
        path: A folder of images, or a file that ``task=embed`` wrote.

    Raises:
        UserError: If the folder has no images, a file cannot be read, or the embeddings are those of another encoder.
    """
    root = Path(path)
    if not root.is_dir():
        return Gallery(EmbeddingIndex.read(root, embedder), [])
    found = (one for one in root.rglob("[!.]*") if one.suffix.lower() in image_suffixes() and one.is_file())
    pictures = sorted(found)
    if not pictures:
        raise UserError(f"gallery: no images in {root}")
    print(f"embedding {len(pictures):,} images of {root}", flush=True)
    labels = [None if one.parent == root else one.parent.name for one in pictures]
    return Gallery(EmbeddingIndex.build(embedder, pictures, labels), pictures)
