"""A table of embeddings, one for each id: users, items, whatever has no features of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import Encoder
from metric_module.encoders.check_inputs import told
from metric_module.errors import UserError
from metric_module.functional import unit


class LookupEncoder(Encoder):
    """Learns an embedding for each id in [0, count).

    Args:
        count: How many ids there are.
        embedding_dim: Size D of an embedding.
        normalize: Whether embeddings have length one.
        scale: Standard deviation of the numbers that training starts from.

    Raises:
        UserError: If an argument is out of range; on a call, if an id is.

    Example:
        >>> users = LookupEncoder(count=943, embedding_dim=8)
        >>> users(torch.tensor([0, 942, 0])).shape
        torch.Size([3, 8])
    """

    def __init__(self, count: int, embedding_dim: int = 64, normalize: bool = True, scale: float = 0.1) -> None:
        super().__init__()
        for name, value in (("count", count), ("embedding_dim", embedding_dim)):
            if value < 1:
                raise UserError(f"encoder.{name}: expected an integer >= 1, got {value}")
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.table = nn.Embedding(count, embedding_dim)
        nn.init.normal_(self.table.weight, std=scale)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of ids, int64 ``(B,)``."""
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.int64 or inputs.ndim != 1:
            raise UserError(f"LookupEncoder: expected int64 ids of shape [B], got {told(inputs)}")
        count = self.table.num_embeddings
        if len(inputs) and not (int(inputs.min()) >= 0 and int(inputs.max()) < count):
            bad = inputs[(inputs < 0) | (inputs >= count)]
            raise UserError(
                f"encoder.count: expected ids in [0, {count}), got {int(bad[0])} ({len(bad)} such in a batch)"
            )
        embeddings: Tensor = self.table(inputs)
        return unit(embeddings) if self.normalize else embeddings
