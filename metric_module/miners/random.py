"""Negatives at random."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.miners.base import SelectingMiner, Triplets, Uniform


class Random(SelectingMiner):
    """For every positive pair some negatives of its anchor, drawn uniformly at random and with replacement.

    The plain choice that others are compared with. Most triplets come out easy once training is under way. With
    replacement means that a pair may get the same negative twice, which then counts twice.

    Args:
        per_pair: How many negatives each positive pair gets, at least 1.

    Raises:
        UserError: If ``per_pair`` is below 1.

    Example:
        >>> distances = torch.tensor([[0.0, 0.5, 0.4, 0.6]])
        >>> positive = torch.tensor([[False, True, False, False]])
        >>> negative = torch.tensor([[False, False, True, True]])
        >>> numbers = torch.tensor([[0.1, 0.2, 0.9]])
        >>> Random(per_pair=3).select(distances, positive, negative, 0.2, lambda n: numbers[:, :n]).negative
        tensor([2, 2, 3])
    """

    def __init__(self, per_pair: int = 1) -> None:
        super().__init__()
        if per_pair < 1:
            raise UserError(f"random: expected per_pair >= 1, got {per_pair}")
        self.per_pair = per_pair

    @override
    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """``per_pair`` negatives for every positive pair whose anchor has a negative."""
        running = negative.cumsum(dim=1, dtype=torch.int32)  # (A, M), negatives so far
        number = running[:, -1:]  # (A, 1)
        anchor, column = (positive & (number > 0)).nonzero(as_tuple=True)  # (T,), (T,)
        if len(anchor) == 0:
            return Triplets(anchor, column, column)
        # Draws are numbered along each row, so that an anchor's draws do not depend on which block it is in.
        pairs = positive.sum(dim=1)  # (A,)
        first = pairs.cumsum(0) - pairs
