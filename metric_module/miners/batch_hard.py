"""The hardest positive and the hardest negative of each anchor."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from metric_module.miners.base import SelectingMiner, Triplets, Uniform


class BatchHard(SelectingMiner):
    """One triplet per anchor: its farthest positive and its nearest negative (Hermans et al. 2017, equation 5)."""

    @override
    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Farthest positive and nearest negative of every anchor that has both."""
        farthest = distances.masked_fill(~positive, -math.inf).argmax(dim=1)  # (A,)
        nearest = distances.masked_fill(~negative, math.inf).argmin(dim=1)  # (A,)
        anchor = (positive.any(dim=1) & negative.any(dim=1)).nonzero().flatten()  # (T,)
        return Triplets(anchor, farthest.index_select(0, anchor), nearest.index_select(0, anchor))
