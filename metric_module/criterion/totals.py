"""Sums over the anchors of a batch: of one block, of all blocks, of all processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion.census import BlockCensus
from metric_module.criterion.window_sum import BlockSum
from metric_module.distributed import sum_over_ranks


class Totals(NamedTuple):
    """Sums over all anchors before normalisation, each ``()``; ``selected`` and ``census`` are None if not counted."""

    loss: Tensor
    active: Tensor
    anchors: Tensor
    rows: Tensor | int
    selected: Tensor | None
    census: BlockCensus | None


class BlockResult(NamedTuple):
    """Contribution of one block to :class:`Totals`, and its gradient."""

    sum: BlockSum
    anchors: Tensor
    census: BlockCensus | None


class BlockSums:
    """Sums of all blocks, in one tensor for each field.

    A small tensor kept for every block would lie among the large temporary ones on the heap, whose memory then cannot
    be used again: the heap would grow with the number of blocks.

    Args:
        number: Number of blocks.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._added = 0
        self._fields: list[Tensor | None] = []  # each (number,), or () of a single block; None if not counted

    def add(self, result: BlockResult) -> None:
        """Copy the sums of one more block."""
        census = result.census or [None] * len(BlockCensus._fields)
        found = [result.sum.loss, result.sum.active, result.anchors, result.sum.selected, *census]
        if self._number == 1:
            self._fields = found
            return
        if not self._fields:
            self._fields = [None if value is None else value.new_empty(self._number) for value in found]
        for field, value in zip(self._fields, found, strict=True):
            if field is not None and value is not None:
                field[self._added] = value
        self._added += 1

    def totals(self, query: Tensor) -> Totals:
        """Add up the blocks; zeros without blocks."""
        if not self._fields:
            zero = torch.zeros((), dtype=torch.int64, device=query.device)
            return Totals(zero.double(), zero, zero, len(query), zero, None)
        totals = [field if field is None or field.dim() == 0 else field.sum() for field in self._fields]
        loss, active, anchors, selected, *census = totals
        assert loss is not None  # every block has the first three
        assert active is not None
        assert anchors is not None
        return Totals(
            loss, active, anchors, len(query), selected, None if census[0] is None else BlockCensus._make(census)
        )


def over_processes(totals: Totals) -> Totals:
    """Sum the totals of all processes in one exchange; one without anchors may lack counts that others have."""
    parts = [*totals[:-1], *(totals.census or [None] * len(BlockCensus._fields))]
    counted = [totals.selected is not None, totals.census is not None]
    # Exact in float64: no count reaches 2^53.
    values = [0 if part is None else part for part in (*parts, *counted)]
    packed = torch.tensor(values, dtype=torch.float64, device=totals.loss.device)  # (14,)
    loss, *counts, sum_d_ap, sum_d_an, with_selected, with_census = sum_over_ranks(packed).unbind()
    active, anchors, rows, selected, *census = (count.long() for count in counts)
    return Totals(
        loss,
        active,
        anchors,
        rows,
        selected if with_selected else None,
        BlockCensus._make([*census, sum_d_ap, sum_d_an]) if with_census else None,
    )
