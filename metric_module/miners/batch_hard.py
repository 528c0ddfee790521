"""The hardest positive and the hardest negative of each anchor."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from metric_module.functional import out_of_reach
from metric_module.miners.base import SelectingMiner, Triplets, Uniform


class BatchHard(SelectingMiner):
    """One triplet per anchor: its farthest positive and its nearest negative (Hermans et al. 2017, equation 5)."""

    @override
    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Select the farthest positive and the nearest negative of every anchor with both."""
        farthest = out_of_reach(distances, positive, sign=-1).max(dim=1, keepdim=True).indices  # (A, 1)
        nearest = out_of_reach(distances, negative).min(dim=1, keepdim=True).indices  # (A, 1)
        # An anchor without a positive or without a negative has an arbitrary column here, which the masks exclude.
        anchor = (positive.gather(1, farthest) & negative.gather(1, nearest)).nonzero()[:, 0]  # (T,)
        return Triplets(anchor, farthest[anchor, 0], nearest[anchor, 0])
