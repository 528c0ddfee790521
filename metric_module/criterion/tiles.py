"""Window mining of a batch that is its own reference, tile by tile, where each tile serves the anchors of both sides.

The anchors are sorted by class and cut into groups of whole classes. The tile of a group with itself has all its
positive pairs, and so the windows of its anchors; in the tiles of two groups every pair is negative. Such a tile is
computed once, and mined for its rows and for its columns. Half of the distances and of the products for their gradient
are enough, in the memory of a few tiles.

Shapes: A, M = anchors of the two groups of a tile, K = largest number of positives of an anchor of a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metric_module.criterion.block_size import cells_at_once
from metric_module.criterion.census import census_of, selected_in_window
from metric_module.criterion.counts import SORT_FROM, count_slots, cover_slots, filled_slots
from metric_module.criterion.finite import overflow_mark
from metric_module.criterion.loss import LossSettings
from metric_module.criterion.pairing import LabelPairs, PairRule
from metric_module.criterion.soft_sum import soft_slots
from metric_module.criterion.sources import BlockDistances, Sources
from metric_module.criterion.totals import BlockResult, BlockSums, Totals
from metric_module.criterion.window_sum import (
    BlockSum,
    PairSlopes,
    counted_edges,
    selected_between,
    sum_of_positives,
    whole,
)
from metric_module.criterion.windows import Window, active_window, window_of, within_reach
from metric_module.distances import Distance
from metric_module.miners import SelectingMiner, WindowMiner
from metric_module.miners.positives import Pairs, candidates


def tile_walk(
    rule: PairRule, distance: Distance, query: Tensor, miner: WindowMiner | SelectingMiner, settings: LossSettings
) -> TileWalk | None:
    """Cut the anchors of a batch that is its own reference into groups of whole classes, to be mined by tiles.

    Args:
        rule: Decides about the pairs.
        distance: The criterion's distance.
        query: The anchors in the order of the rule, ``(B, D)``.
        miner: Defines the windows.
        settings: What is summed and counted.

    Returns:
        None if tiles are of no use: for a miner that names single triplets, for a batch that fits into one tile, for
        pairs that the classes alone do not decide, for large classes, and for a distance that is not symmetric.
    """
    side = max(1, math.isqrt(cells_at_once(query.element_size(), query.device) // 2))
    if not isinstance(miner, WindowMiner) or len(query) <= side or not (distance.symmetric and distance.has_pairs):
        return None
    if not isinstance(rule, LabelPairs) or not rule.only_classes or rule.order is None:
        return None
    sizes = rule.classes.sizes
    if sizes[0] > side or sizes.sum() > (SORT_FROM + 1) * len(sizes):
        return None
    return TileWalk(rule, list(_groups(sizes, side)), miner, settings)


def _groups(sizes: npt.NDArray[np.int64], side: int) -> Iterator[slice]:
    """Cut anchors into groups of whole classes with at most ``side`` anchors, of about the same size."""
    height = math.ceil(len(sizes) / math.ceil(len(sizes) / side))
    start = stop = 0
    while stop < len(sizes):
        if stop > start and stop + sizes[stop] - start > side:
            yield slice(start, stop)
            start = stop
        stop += int(sizes[stop])
        if stop - start >= height:
            yield slice(start, stop)
            start = stop
    if stop > start:
        yield slice(start, stop)


@dataclass
class _Group:
    """The anchors of one group; everything about their positives is in the order of the slots.

    Attributes:
        rows: The anchors.
        pairs: Their positives, as columns of the group, and the number of their negatives.
        filled: See :func:`metric_module.criterion.counts.filled_slots`.
        d_ap: Distance of each positive, ``(K, A)``.
        target: ``d_ap + margin``, ``(K, A)``.
        window: The window of each positive, in the order of the anchors.
        low: Its lower edge, ``(K, A)``; for the hinge, that of its active part. None: unbounded.
        high: Its upper edge, ``(K, A)``; for the hinge, that of its active part. None: unbounded.
        weight: Derivative of the loss by each target, ``(K, A)``; for the hinge the number of active triplets.
        edges: Edges at or below which the negatives are counted, ``(K, A)`` each.
        counts: These counts, ``(K, A)`` each.
        sum_d_an: Sum of the distances to the negatives, ``(A,)``; only for the census.
    """

    rows: slice
    pairs: Pairs
    filled: list[tuple[slice, int]]
    d_ap: Tensor
    target: Tensor
    window: Window
    low: Tensor | None
    high: Tensor | None
    weight: Tensor
    edges: list[Tensor]
    counts: list[Tensor]
    sum_d_an: Tensor


class TileWalk:
    """Mines tile by tile; see the module.

    Args:
        rule: Decides about the pairs.
        spans: The groups.
        miner: Defines the windows.
        settings: What is summed and counted.
    """

    def __init__(self, rule: LabelPairs, spans: list[slice], miner: WindowMiner, settings: LossSettings) -> None:
        self.rule, self.spans, self.miner = rule, spans, miner
        self.margin, self.loss, self.census, counted = settings
        self.counted = (counted or self.loss == "soft") and not (self.census and miner.categories is not None)

    def __call__(self, sources: Sources) -> Totals:
        """Mine all anchors, and add up their gradients."""
        groups: list[_Group] = []
        loss = torch.zeros((), dtype=torch.float64, device=sources.query.device)
        for rows in self.spans:
            block = sources.distances(rows, rows, self.rule.read, gradient=sources.needed)
            group, values = self._group(rows, block.values.detach())
            loss += self._mine(sources, block, values, [(group, 1)])
            groups.append(group)
        for place, group in enumerate(groups):
            for other in groups[place + 1 :]:
                block = sources.distances(group.rows, other.rows, self.rule.read, gradient=sources.needed)
                loss += self._mine(sources, block, block.values.detach(), [(group, 1), (other, 0)])
        sums = BlockSums(len(groups))
        for group in groups:
            sums.add(self._result(group))
            if sources.needed:
                self._add_positives(sources, group)
        totals = sums.totals(sources.query)
        return totals._replace(loss=totals.loss + loss)

    def _group(self, rows: slice, distances: Tensor) -> tuple[_Group, Tensor]:
        """Find the windows of a group from the distances of its own tile, ``(A, A)``; move positives beyond them."""
        pairs = self.rule.pairs_within(rows, distances.dtype)
        block = candidates(distances, pairs.slots, pairs.barred)
        window = window_of(self.miner, block.d_ap, self.margin, filled=pairs.slots.all_filled)
        target = block.d_ap + self.margin  # (A, K)
        edges = [block.d_ap, target] if self.census else []
        if self.counted:
            edges += [edge for edge in counted_edges(window) if edge is not None]
        low, high = active_window(window, target) if self.loss == "hinge" else within_reach(window)
        low, high = (None if edge is None else edge.T.contiguous() for edge in (low, high))  # (K, A)
        d_ap, target, *edges = (part.T.contiguous() for part in (block.d_ap, target, *edges))  # (K, A)
        counts = [torch.zeros_like(edge) for edge in edges]  # (K, A)
        filled, weight = filled_slots(pairs.slots.number), torch.zeros_like(d_ap)
        sum_d_an = distances.new_zeros(len(distances), dtype=torch.float64)  # (A,)
        if self.census:
            sum_d_an += self.rule.sum_d_an(slice(0, len(distances)), block)
        return _Group(
            rows, pairs, filled, d_ap, target, window, low, high, weight, edges, counts, sum_d_an
        ), block.values

    def _mine(self, sources: Sources, block: BlockDistances, values: Tensor, sides: list[tuple[_Group, int]]) -> Tensor:
        """Mine one tile for the anchors of its sides, and add the gradient by its distances.

        Args:
            sources: Takes the gradient.
            block: The distances ``(A, M)``.
            values: The same, with references that are not negatives moved beyond every window.
            sides: The groups, and the dimension of their references: 1 for the rows, 0 for the columns.

        Returns:
            The loss; of the hinge without the part of the positives. Float64 ``()``.
        """
        distances = block.values.detach()  # (A, M)
        total = overflow_mark(distances)
        cover, *scratch = torch.zeros_like(values), torch.empty_like(values), torch.empty_like(values)  # (A, M)
        for group, dim in sides:
            ready = (group.filled, group.weight, cover)
            if self.loss == "hinge":
                assert group.high is not None  # the active part of a window is bounded
                cover_slots(values, group.low, group.high, *ready, scratch, dim)
            else:
                total = total + soft_slots(values, group.target, group.low, group.high, *ready, dim)
            for edge, count in zip(group.edges, group.counts, strict=True):
                count_slots(values, edge, group.filled, count, scratch[0], dim)
            if self.census and len(sides) > 1:  # all of another group are negatives
                group.sum_d_an.add_(distances.sum(dim=dim))
        if self.loss == "hinge":
            total = total + torch.mul(cover, distances, out=scratch[0]).sum(dim=1).sum(dtype=torch.float64)
        sources.add(block, cover)
        return total

    def _add_positives(self, sources: Sources, group: _Group) -> None:
        """Add the gradient by the distances of the positive pairs."""
        column = group.pairs.slots.column + group.rows.start  # (A, K)
        sources.add_pairs(group.rows, PairSlopes(None, column, group.weight.T))

    def _result(self, group: _Group) -> BlockResult:
        """Sum up a group: its counts, and of the hinge the part of the positives."""
        slots, number = group.pairs.slots, group.pairs.negatives
        counts = [count.T for count in group.counts]  # (A, K) each
        census = selected = None
        if self.census:
            census = census_of(slots, number, group.d_ap.T, counts[0], counts[1], group.sum_d_an)
        if self.counted:
            at_edges = iter(counts[2 * self.census :])
            lower, upper = (None if edge is None else next(at_edges) for edge in group.window)  # (A, K), (A, K)
            selected = selected_between(slots, number, lower, upper)
        elif census is not None and self.miner.categories is not None:
            selected = selected_in_window(census, self.miner.categories)
        if self.loss == "hinge":
            found = BlockSum(sum_of_positives(slots, group.weight, group.target), selected, whole(group.weight), None)
        else:
            assert selected is not None  # the soft loss always counts
            found = BlockSum(group.sum_d_an.new_zeros(()), selected, selected, None)
        return BlockResult(found, self.rule.usable(group.rows, group.pairs), census)
