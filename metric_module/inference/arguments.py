"""Arguments and results of an index, and their checks.

Shapes: N = items, Q = queries, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from metric_module import distances
from metric_module.distances import Distance
from metric_module.errors import UserError, printable

Items = Sequence[Any] | Tensor
"""A list of items, or embeddings ``(N, D)``."""

Labels = Sequence[str | None] | None
"""Class name of each item, None where it has none; None: no item has one."""


class ItemEmbedder(Protocol):
    """Interface of an embedder, as far as an index uses it."""

    embedding_dim: int
    threshold: float | None
    distance_function: Distance

    def embed(self, items: Sequence[Any], batch_size: int = 256) -> Tensor:
        """Embed items: float32 ``(N, D)`` on the CPU."""
        ...

    def name_of(self, item: Any, position: int) -> str:
        """Return the path of an item, or its position as text."""
        ...


class Neighbours(NamedTuple):
    """Distances of the nearest items, float64 ``(Q, K)``, nearest first, and their positions, int64 ``(Q, K)``."""

    distances: Tensor
    positions: Tensor


def threshold_or(threshold: float | None, default: float | None) -> float:
    """Return the first threshold that is given.

    Raises:
        UserError: If there is none.
    """
    chosen = default if threshold is None else threshold
    if chosen is None:
        raise UserError("identify: expected a threshold, as the embedder and the file have none; give threshold=...")
    return chosen


def check_labels(labels: Labels, rows: int) -> list[str | None]:
    """Return one label for each of the items, None where there is none.

    Raises:
        UserError: If their number differs, or one is not a text.
    """
    if labels is None:
        return [None] * rows
    if isinstance(labels, str) or len(labels) != rows:
        got = repr(labels) if isinstance(labels, str) else len(labels)
        raise UserError(f"labels: expected a list of {rows}, one for each item, got {got}")
    for label in labels:
        if not (label is None or isinstance(label, str)) or label == "":
            raise UserError(f"labels: expected text or None, got {label!r}")
    return list(labels)


def item_names(embedder: ItemEmbedder | None, items: Items, first: int) -> list[str]:
    """Return the names of items, the first of which gets the position ``first``; those of embeddings are positions."""
    if isinstance(items, Tensor) or embedder is None:
        return [str(first + place) for place in range(len(items))]
    return [embedder.name_of(item, first + place) for place, item in enumerate(items)]


def distance_of(path: str | Path, name: str | None, embedder: ItemEmbedder | None) -> Distance:
    """Return the distance of the embedder, or the one that a file names."""
    if embedder is not None:
        own = type(embedder.distance_function).__name__
        if name not in {None, own}:
            raise UserError(f"{path}: expected distance {own} as of the embedder, got {printable(str(name))}")
        return embedder.distance_function
    shipped = {one: getattr(distances, one) for one in distances.__all__}
    found = shipped.get(name or "")
    if found is None or found is Distance or not issubclass(found, Distance):
        raise UserError(f"{path}: unknown distance {name!r}; give the embedder: read(path, embedder)")
    made: Distance = found()
    return made
