"""The hardest positive and the hardest negative of each anchor."""

from __future__ import annotations

from typing_extensions import override

from metric_module.miners.base import PaddedMiner, PaddedTriplets, Uniform
from metric_module.miners.positives import Candidates
from metric_module.miners.search import nearest


class BatchHard(PaddedMiner):
    """One triplet per anchor: its farthest positive and its nearest negative (Hermans et al. 2017, equation 5)."""

    @override
    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Choose the farthest positive and the nearest negative of every anchor with both."""
        column, valid, _ = block.slots
        farthest = block.d_ap.argmax(dim=1, keepdim=True)  # (A, 1)
        found = nearest(block.values)  # (A, 1)
        return PaddedTriplets(column.gather(1, farthest), found.column, found.valid & valid[:, :1])
