"""Loss, gradient and census of one block of anchors, for each kind of miner.

Shapes: A = anchors in the block, M = references.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metric_module.criterion.blockwise import BlockResult
from metric_module.criterion.census import block_census
from metric_module.criterion.pairing import PairRule
from metric_module.criterion.selected_sum import selected_sum
from metric_module.criterion.window_sum import Negatives, prepare, window_sum
from metric_module.miners import SelectingMiner, Uniform, WindowMiner


class LossBlock(NamedTuple):
    """One block of anchors, ready to be mined.

    Attributes:
        distances: Distances ``(A, M)``, without gradient.
        rule: Decides about the pairs of all anchors.
        rows: The anchors of the block.
        uniform: Random numbers for the anchors of the block.
        margin: In units of the distance.
        loss: ``"hinge"`` or ``"soft"``.
        gradient: Whether to compute the gradient.
        census: Whether to count the triplets of each category.
        counted: Whether to count the triplets of a window, which may cost a pass.
    """

    distances: Tensor
    rule: PairRule
    rows: slice
    uniform: Uniform
    margin: float
    loss: str
    gradient: bool
    census: bool
    counted: bool

    def mine_window(self, miner: WindowMiner) -> BlockResult:
        """Sum the loss of all triplets in the window."""
        block = self._negatives()
        found = window_sum(block, miner, self.margin, self.loss, gradient=self.gradient, count=self.counted)
        anchors = (block.slots.valid.any(dim=1) & (block.number > 0)).sum()
        return BlockResult(found, anchors, block_census(block, self.margin) if self.census else None)

    def mine_selection(self, miner: SelectingMiner) -> BlockResult:
        """Sum the loss of the selected triplets."""
        masks = self.rule.masks(self.rows)
        found = selected_sum(self.distances, masks, miner, self.uniform, self.margin, self.loss, gradient=self.gradient)
        anchors = self.rule.usable(self.rows, masks).sum()
        return BlockResult(found, anchors, block_census(self._negatives(), self.margin) if self.census else None)

    def _negatives(self) -> Negatives:
        return prepare(self.distances, self.rule.pairs(self.rows, self.distances.dtype))
