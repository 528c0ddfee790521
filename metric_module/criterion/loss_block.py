"""Loss, gradient and census of one block of anchors, for each kind of miner.

Shapes: A = anchors in the block, M = references.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metric_module.criterion.census import BlockCensus, block_census, selected_in_window
from metric_module.criterion.counts import counter_of
from metric_module.criterion.loss import LossSettings
from metric_module.criterion.pairing import PairRule
from metric_module.criterion.selected_sum import from_miner, from_padded, selected_sum
from metric_module.criterion.totals import BlockResult
from metric_module.criterion.window_sum import Negatives, window_sum
from metric_module.miners import SelectingMiner, Uniform, WindowMiner
from metric_module.miners.base import PaddedMiner
from metric_module.miners.positives import Candidates, Pairs, candidates


class LossBlock(NamedTuple):
    """One block of anchors, ready to be mined.

    Attributes:
        distances: Distances ``(A, M)``, without gradient.
        rule: Decides about the pairs of all anchors.
        rows: The anchors of the block.
        uniform: Random numbers for the anchors of the block.
        settings: What is summed and counted.
        gradient: Whether to compute the gradient.
        by_pair: Whether a selecting miner's gradient is that of its pairs alone.
    """

    distances: Tensor
    rule: PairRule
    rows: slice
    uniform: Uniform
    settings: LossSettings
    gradient: bool
    by_pair: bool

    def mine_window(self, miner: WindowMiner) -> BlockResult:
        """Sum the loss of all triplets in the window."""
        margin, loss, with_census, counted = self.settings
        block, pairs = self._prepare()
        negatives = _counted(block, pairs)
        census = self._census(negatives) if with_census else None
        count = counted and (census is None or miner.categories is None)
        found = window_sum(negatives, miner, margin, loss, gradient=self.gradient, count=count)
        if census is not None and miner.categories is not None:
            found = found._replace(selected=selected_in_window(census, miner.categories))
        return BlockResult(found, self.rule.usable(self.rows, pairs), census)

    def mine_selection(self, miner: SelectingMiner) -> BlockResult:
        """Sum the loss of the selected triplets."""
        margin, loss, with_census, _ = self.settings
        block, pairs = self._prepare()
        if isinstance(miner, PaddedMiner) and type(miner).select is PaddedMiner.select:
            triplets = from_padded(miner.padded(block, margin, self.uniform))
        else:
            triplets = from_miner(self.distances, self.rule.masks(self.rows), miner, self.uniform, margin)
        found = selected_sum(self.distances, triplets, margin, loss, gradient=self.gradient, by_pair=self.by_pair)
        census = self._census(_counted(block, pairs)) if with_census else None
        return BlockResult(found, self.rule.usable(self.rows, pairs), census)

    def _census(self, negatives: Negatives) -> BlockCensus:
        return block_census(negatives, self.settings.margin, self.rule.sum_d_an(self.rows, negatives.block))

    def _prepare(self) -> tuple[Candidates, Pairs]:
        pairs = self.rule.pairs(self.rows, self.distances.dtype)
        return candidates(self.distances, pairs.slots, pairs.barred), pairs


def _counted(block: Candidates, pairs: Pairs) -> Negatives:
    return Negatives(block, pairs.negatives, counter_of(block.values, block.slots))
