"""Random negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.miners.base import SelectingMiner, Triplets, Uniform
from metric_module.miners.positives import positive_slots
from metric_module.miners.search import place


class Random(SelectingMiner):
    """For every positive pair some negatives of its anchor, drawn uniformly at random and with replacement.

    This is the baseline for other miners; after the first steps of training most of its triplets are easy. With
    replacement means that a pair may get the same negative twice, which then counts twice.

    Args:
        per_pair: Number of negatives of each positive pair, at least 1.

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
        """Draw ``per_pair`` negatives for every positive pair whose anchor has a negative."""
        slots = positive_slots(positive)  # (A, K)
        running = negative.cumsum(dim=1, dtype=torch.int32)  # (A, M), negatives up to here
        number = running[:, -1:]  # (A, 1)
        # Draws are numbered along each row, so that an anchor's draws do not depend on which block it is in.
        draw = uniform(slots.column.shape[1] * self.per_pair)  # (A, K * n)
        index = torch.searchsorted(running, place(draw, number).to(torch.int32), right=True)  # (A, K * n)
        anchor, slot = (slots.valid & (number > 0)).nonzero(as_tuple=True)  # (T / n,), (T / n,)
        chosen = index.view(len(index), slots.column.shape[1], self.per_pair)[anchor, slot]  # (T / n, n)
        column = slots.column[anchor, slot]  # (T / n,)
        each = self.per_pair
        return Triplets(anchor.repeat_interleave(each), column.repeat_interleave(each), chosen.flatten())
