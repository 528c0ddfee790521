"""An embedder of short texts, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module import Embedder, EmbeddingIndex
from metric_module.distances import Distance, Euclidean


class Letters(Embedder):
    """Embeds a text by how often it has each of the letters a to h; its batches are recorded."""

    def __init__(self, distance: Distance | None = None, threshold: float | None = 1.5, width: int = 8) -> None:
        super().__init__(nn.Identity(), distance or Euclidean(), threshold=threshold, device="cpu")
        self.embedding_dim = width
        self.batch_sizes: list[int] = []

    @override
    def embed(self, items: Sequence[Any] | Tensor, batch_size: int = 256) -> Tensor:
        self.batch_sizes.append(batch_size)
        return torch.tensor([[float(item.count(letter)) for letter in "abcdefgh"] for item in items])

    @override
    def name_of(self, item: Any, position: int) -> str:
        return str(item) if "/" in item else str(position)


WORDS = ["aab", "x/aab.png", "bbb", "cdef", "gh", "hhh"]
LABELS = ["one", "two", None, "four", None, "six"]


def built(distance: Distance | None = None, threshold: float | None = 1.5) -> EmbeddingIndex:
    return EmbeddingIndex.build(Letters(distance, threshold), WORDS, LABELS)
