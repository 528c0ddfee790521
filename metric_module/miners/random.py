"""Random negatives."""

from __future__ import annotations

import torch
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import window_limit
from metric_module.miners.base import PaddedMiner, PaddedTriplets, Uniform
from metric_module.miners.positives import Candidates
from metric_module.miners.search import place


class Random(PaddedMiner):
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
    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Draw ``per_pair`` negatives for every positive pair whose anchor has a negative."""
        column, valid, _ = block.slots
        negative = block.values < window_limit(block.values.dtype)  # (A, M)
        running = negative.cumsum(dim=1, dtype=torch.int32)  # (A, M), negatives up to here
        number = running[:, -1:]  # (A, 1)
        # Draws are numbered along each row, so that an anchor's draws do not depend on which block it is in.
        draw = uniform(column.shape[1] * self.per_pair)  # (A, S), S = K * n
        chosen = torch.searchsorted(running, place(draw, number).to(torch.int32), right=True)  # (A, S)
        column, valid = (part.repeat_interleave(self.per_pair, dim=1) for part in (column, valid))  # (A, S), (A, S)
        return PaddedTriplets(column, chosen.clamp_(max=running.shape[1] - 1), valid & (number > 0))
