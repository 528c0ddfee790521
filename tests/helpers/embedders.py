"""An embedder of short texts, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metric_module import EmbeddingIndex
from metric_module.distances import Distance, Euclidean


class Letters:
    """Embeds a text by how often it has each of the letters a to h; its batches are recorded."""

    embedding_dim = 8

    def __init__(self, distance: Distance | None = None, threshold: float | None = 1.5) -> None:
        self.distance_function: Distance = Euclidean() if distance is None else distance
        self.threshold = threshold
        self.batch_sizes: list[int] = []

    def embed(self, items: Sequence[Any], batch_size: int = 256) -> Tensor:
        self.batch_sizes.append(batch_size)
        return torch.tensor([[float(item.count(letter)) for letter in "abcdefgh"] for item in items])

    def name_of(self, item: Any, position: int) -> str:
        return str(item) if "/" in item else str(position)


WORDS = ["aab", "x/aab.png", "bbb", "cdef", "gh", "hhh"]
LABELS = ["one", "two", None, "four", None, "six"]


def built(distance: Distance | None = None, threshold: float | None = 1.5) -> EmbeddingIndex:
    return EmbeddingIndex.build(Letters(distance, threshold), WORDS, LABELS)
