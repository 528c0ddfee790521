"""Memory of the blocks of a large batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from metric_module.criterion.blockwise import blockwise_loss
from metric_module.criterion.census import BlockCensus
from metric_module.criterion.rows import mine_rows
from metric_module.criterion.totals import BlockResult, Totals
from metric_module.criterion.window_sum import BlockSum
from metric_module.distances import Euclidean
from tests.helpers.blocks import small_blocks


def tensors(result: BlockResult) -> Iterator[Tensor]:
    """The tensors of one result."""
    assert result.census is not None
    for part in (*result.sum, result.anchors, *result.census):
        if part is not None:
            assert isinstance(part, Tensor)
            yield part


@pytest.mark.parametrize("rows_per_block", [1, 4, 20])
def test_nothing_of_a_block_outlives_it(rows_per_block: int) -> None:
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def terms(distances: Tensor, rows: slice, gradient: bool) -> BlockResult:
        """Numbers of the block, each in a tensor of its own."""
        alive.append(sum(reference() is not None for reference in seen))
        number = torch.tensor(rows.start)
        counts = [number * step for step in range(5)]
        census = BlockCensus._make([*counts, number / 8.0, number / 2.0])
        slope = torch.ones_like(distances) if gradient else None
        found = BlockResult(BlockSum(number.double() / 3, None, number + 1, slope), number + 2, census)
        seen.extend(weakref.ref(part) for part in tensors(found))
        return found

    def divisor(totals: Totals) -> Tensor:
        """No division."""
        return torch.ones(())

    query = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with small_blocks(memory_budget=rows_per_block * 8 * 4 * len(query)):
        walk = partial(mine_rows, terms=terms, read=bool)
        loss, totals = blockwise_loss(query, None, Euclidean(), [], walk, divisor)
    starts = torch.arange(0, 20, rows_per_block)
    assert alive == [0] * len(starts)
    torch.testing.assert_close(loss, (starts.double() / 3).sum().float())
    assert totals.census is not None and totals.selected is None and totals.rows == 20
    whole = [totals.active - len(starts), totals.anchors - 2 * len(starts), *totals.census[:5]]
    assert [int(part) for part in whole] == [int(starts.sum()) * step for step in (1, 1, 0, 1, 2, 3, 4)]
    assert [float(part) for part in totals.census[5:]] == [float(starts.sum()) / 8, float(starts.sum()) / 2]


def test_no_anchors() -> None:
    query = torch.zeros(0, 3, requires_grad=True)
    reference = torch.zeros(4, 3)
    walk = partial(mine_rows, terms=None, read=bool)  # type: ignore[arg-type]
    loss, totals = blockwise_loss(query, reference, Euclidean(), [], walk, lambda totals: totals.active)
    assert loss == 0 and [int(part) for part in (totals.active, totals.anchors, totals.rows)] == [0, 0, 0]
    assert totals.selected == 0 and totals.census is None
