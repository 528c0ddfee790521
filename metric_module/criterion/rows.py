"""Mining block by block, each block of anchors among all references.

Shapes: A = anchors in a block, M = references.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metric_module.criterion.block_size import blocks
from metric_module.criterion.sources import Read, Sources
from metric_module.criterion.totals import BlockResult, BlockSums, Totals
from metric_module.criterion.window_sum import PairSlopes

BlockTerms = Callable[[Tensor, slice, bool], BlockResult]
"""``terms(distances, rows, gradient)`` mines one block with distances ``(A, M)`` and sums its loss."""


def mine_rows(sources: Sources, terms: BlockTerms, read: Read, *, by_pair: bool = False) -> Totals:
    """Mine blocks of anchors, each among all references.

    Args:
        sources: Anchors and references.
        terms: Mines one block and sums its loss.
        read: Reads whether some distances must be computed again.
        by_pair: Whether the gradients are those of single pairs.
    """
    query, columns = sources.query, slice(0, len(sources.reference))
    spans = list(blocks(len(query), len(sources.reference), query.element_size(), query.device))
    sums, needed = BlockSums(len(spans)), sources.needed
    for rows in spans:
        block = sources.distances(rows, columns, read, gradient=needed and not by_pair)
        result = terms(block.values, rows, needed)
        slope = result.sum.gradient
        if isinstance(slope, PairSlopes):
            sources.add_pairs(rows, slope)
        elif slope is not None:
            sources.add(block, slope)
        sums.add(result)
        del block, result, slope
    return sums.totals(query)
