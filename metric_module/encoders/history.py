"""Embedding of a user from the items in their history.

Shapes: B = users, L = length of a history, D = embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import Encoder, check_positive
from metric_module.encoders.check_inputs import describe
from metric_module.errors import UserError
from metric_module.functional import unit


class HistoryEncoder(Encoder):
    """Sum of an embedding for each item of a history, where older items count less, and of one for every user.

    As in FISM (Kabbur et al. 2013), there is no embedding of a single user, so that a user who was not in training can
    be embedded too. Unlike there, the weight of an item is ``exp(-decay * age)``, where the newest item has age 0.

    Args:
        count: Number of items.
        embedding_dim: Size D of an embedding.
        decay: How much less an older item counts; 0: all items count alike.
        normalize: Whether embeddings have length one.
        scale: Standard deviation of the initial weights.

    Raises:
        UserError: If an argument is out of range; on a call, if the inputs are not histories, or an id is out of range.

    Example:
        >>> users = HistoryEncoder(count=1682, embedding_dim=8)
        >>> users(torch.tensor([[4, 1681, 7], [9, -1, -1]])).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, count: int, embedding_dim: int = 64, decay: float = 0.1, normalize: bool = True, scale: float = 0.1
    ) -> None:
        super().__init__()
        check_positive({"count": count, "embedding_dim": embedding_dim})
        if not decay >= 0:
            raise UserError(f"encoder.decay: expected a number >= 0, got {decay}")
        self.embedding_dim = embedding_dim
        self.decay = decay
        self.normalize = normalize
        self.table = nn.Embedding(count, embedding_dim)
        self.anyone = nn.Parameter(torch.empty(embedding_dim))
        for weights in (self.table.weight, self.anyone):
            nn.init.normal_(weights, std=scale)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of histories, int64 ``(B, L)``: ids of items, the newest first, and -1 after the last.

        An empty history gives the embedding of every user.
        """
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.int64 or inputs.ndim != 2:
            raise UserError(f"HistoryEncoder: expected int64 ids of shape [B, L], got {describe(inputs)}")
        count = self.table.num_embeddings
        if inputs.numel() and not (int(inputs.min()) >= -1 and int(inputs.max()) < count):
            bad = inputs[(inputs < -1) | (inputs >= count)]
            outside = f"{len(bad)} in a batch are out of range"
            raise UserError(f"encoder.count: expected ids in [0, {count}), or -1, got {int(bad[0])} ({outside})")
        age = torch.arange(inputs.shape[1], device=inputs.device)  # (L,)
        weight = (inputs >= 0) * torch.exp(-self.decay * age)  # (B, L)
        embeddings = self.table(inputs.clamp(min=0))  # (B, L, D)
        whole: Tensor = self.anyone + (weight.to(embeddings.dtype)[:, None] @ embeddings)[:, 0]  # (B, D)
        return unit(whole) if self.normalize else whole
