"""Table with one embedding for each id, for users, items, and others that have no features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import Encoder, check_positive
from metric_module.encoders.check_inputs import check_ids, describe
from metric_module.errors import UserError
from metric_module.functional import unit


class LookupEncoder(Encoder):
    """Learns an embedding for each id in [0, count).

    Args:
        count: Number of ids.
        embedding_dim: Size D of an embedding.
        normalize: Whether embeddings have length one.
        scale: Standard deviation of the initial weights.

    Raises:
        UserError: If an argument is out of range; on a call, if the inputs are not ids, or an id is out of range.

    Example:
        >>> users = LookupEncoder(count=943, embedding_dim=8)
        >>> users(torch.tensor([0, 942, 0])).shape
        torch.Size([3, 8])
    """

    def __init__(self, count: int, embedding_dim: int = 64, normalize: bool = True, scale: float = 0.1) -> None:
        super().__init__()
        check_positive({"count": count, "embedding_dim": embedding_dim})
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.table = nn.Embedding(count, embedding_dim)
        nn.init.normal_(self.table.weight, std=scale)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of ids, int64 ``(B,)``."""
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.int64 or inputs.ndim != 1:
            raise UserError(f"LookupEncoder: expected int64 ids of shape [B], got {describe(inputs)}")
        check_ids(inputs, 0, self.table.num_embeddings)
        embeddings: Tensor = self.table(inputs)
        return unit(embeddings) if self.normalize else embeddings
