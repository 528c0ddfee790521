"""A gallery to search in: a folder of images, or a file of embeddings."""

from __future__ import annotations

from pathlib import Path

from metric_module.errors import UserError
from metric_module.inference.embedder import Embedder
from metric_module.inference.index import EmbeddingIndex
from metric_module.preprocessing.reading import image_suffixes


def read_gallery(embedder: Embedder, path: str | Path) -> tuple[EmbeddingIndex, list[Path]]:
    """Read a gallery; images in a subfolder have its name as their label.

    Args:
        embedder: Embeds the images, and later the queries.
        path: A folder of images, or a file that ``task=embed`` wrote.

    Returns:
        The index, and the image file of each item by position; no files if the gallery is a file of embeddings.

    Raises:
        UserError: If the folder has no images, a file cannot be read, or the embeddings are those of another encoder.
    """
    root = Path(path)
    if not root.is_dir():
        return EmbeddingIndex.read(root, embedder), []
    pictures = sorted(one for one in root.rglob("[!.]*") if one.suffix.lower() in image_suffixes())
    if not pictures:
        raise UserError(f"gallery: no images in {root}")
    print(f"embedding {len(pictures):,} images of {root}", flush=True)
    labels = [None if one.parent == root else one.parent.name for one in pictures]
    return EmbeddingIndex.build(embedder, pictures, labels), pictures
