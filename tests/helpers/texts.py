"""An encoder of texts that is small enough for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module import Encoder

BUCKETS = 32


class CharacterCounts(Encoder):
    """A linear map of the counts of characters, by their number modulo 32."""

    def __init__(self, embedding_dim: int = 8) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.linear = nn.Linear(BUCKETS, embedding_dim)

    @override
    def forward(self, inputs: list[str]) -> Tensor:
        counts = torch.zeros(len(inputs), BUCKETS, device=self.linear.weight.device)  # (B, 32)
        for row, text in enumerate(inputs):
            for character in text:
                counts[row, ord(character) % BUCKETS] += 1
        embeddings: Tensor = nn.functional.normalize(self.linear(counts), dim=1)  # (B, D)
        return embeddings
