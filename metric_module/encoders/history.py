"""Embeddings of items, and of users from the items in their history.

Shapes: B = items or users, L = length of a history, D = embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import Encoder, check_positive
from metric_module.encoders.check_inputs import check_ids, describe
from metric_module.errors import UserError
from metric_module.functional import unit


class HistoryEncoder(Encoder):
    """Learns an embedding for each item; that of a user is the sum over their items, where older items count less.

    As in FISM (Kabbur et al. 2013), there is no embedding of a single user, so that a user who was not in training can
    be embedded too. Unlike there, users and items share one table, and an item counts ``exp(-decay * age)`` times,
    where the newest item has age 0. An embedding that all users have in common is added to the sum.

    Args:
        count: Number of items.
        embedding_dim: Size D of an embedding.
        decay: How much less an older item counts; 0: all items count alike.
        normalize: Whether embeddings have length one.
        scale: Standard deviation of the initial weights.

    Raises:
        UserError: If an argument is out of range; on a call, if the inputs are not ids, or an id is out of range.

    Example:
        >>> encoder = HistoryEncoder(count=1682, embedding_dim=8)
        >>> items, users = encoder(torch.tensor([4, 1681])), encoder(torch.tensor([[4, 1681, 7], [9, -1, -1]]))
        >>> items.shape, users.shape
        (torch.Size([2, 8]), torch.Size([2, 8]))
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
        """Embed items or users.

        Args:
            inputs: Ids of items, int64 ``(B,)``; or histories of users, int64 ``(B, L)``: ids of items, the newest
                first, and -1 after the oldest.

        Returns:
            Embeddings ``(B, D)``.
        """
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.int64 or inputs.ndim not in {1, 2}:
            raise UserError(f"HistoryEncoder: expected int64 ids of shape [B] or [B, L], got {describe(inputs)}")
        check_ids(inputs, 1 - inputs.ndim, self.table.num_embeddings)
        embeddings: Tensor = self.table(inputs.clamp(min=0))  # (B, D) or (B, L, D)
        if inputs.ndim == 2:
            precise = torch.promote_types(embeddings.dtype, torch.float32)
            age = torch.arange(inputs.shape[1], device=inputs.device, dtype=precise)  # (L,)
            weight = ((inputs >= 0) * torch.exp(-self.decay * age)).to(embeddings.dtype)  # (B, L)
            embeddings = self.anyone + (weight[:, None] @ embeddings)[:, 0]  # (B, D)
        return unit(embeddings) if self.normalize else embeddings
