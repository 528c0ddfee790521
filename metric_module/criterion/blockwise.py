"""Exact loss and gradient over blocks of anchors, in bounded memory.

The loss is a sum over anchors. For each block of anchors, the distances to all references are computed, mined and
summed, the gradient is computed with respect to the block, the references and any parameter of the distance, and the
block is freed. Memory is ``O(block * M + M * D)`` for any batch size.

Shapes: B = anchors, A = anchors in a block, M = references, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.criterion.census import BlockCensus
from metric_module.criterion.window_sum import BlockSum
from metric_module.distances.base import Measure
from metric_module.distributed import sum_over_ranks, world_size

MEMORY_BUDGET = 64 * 2**20
"""Largest total size of the ``(A, M)`` tensors of one block, in bytes."""

_TENSORS_PER_BLOCK = 8


class Totals(NamedTuple):
    """Sums over all anchors before normalisation, each ``()``; ``selected`` and ``census`` are None if not counted."""

    loss: Tensor
    active: Tensor
    anchors: Tensor
    rows: Tensor
    selected: Tensor | None
    census: BlockCensus | None


class BlockResult(NamedTuple):
    """Contribution of one block to :class:`Totals`, and its gradient."""

    sum: BlockSum
    anchors: Tensor
    census: BlockCensus | None


BlockTerms = Callable[[Tensor, slice, bool], BlockResult]
"""``terms(distances, rows, gradient)`` mines one block with distances ``(A, M)`` and sums its loss."""


def blockwise_loss(
    query: Tensor,
    reference: Tensor | None,
    distance: Measure,
    learnable: Sequence[Tensor],
    terms: BlockTerms,
    divisor: Callable[[Totals], Tensor],
    *,
    all_processes: bool = False,
) -> tuple[Tensor, Totals]:
    """Sum the loss over all anchors, block by block, and divide it once at the end.

    Args:
        query: Anchors ``(B, D)``.
        reference: References ``(M, D)``; None if the anchors are their own.
        distance: Gives ``(A, M)`` for a block of anchors.
        learnable: Parameters of the distance that get a gradient.
        terms: Mines one block and sums its loss.
        divisor: Computes the divisor of the summed loss from the totals, ``()``.
        all_processes: Whether to sum over the anchors of all processes. The gradient is then that of this process's
            anchors times the world size, as data-parallel training averages gradients.

    Returns:
        The loss ``()``, differentiable with respect to ``query``, ``reference`` and ``learnable``, and the totals.
    """
    sources = [query, *([] if reference is None else [reference]), *learnable]
    plan = _Plan(distance, terms, divisor, reference is None, torch.is_grad_enabled(), all_processes)
    loss: Tensor = _BlockwiseFunction.apply(plan, *sources)
    if plan.totals is None:
        raise RuntimeError("the blockwise loss was not computed")
    return loss, plan.totals


@dataclass
class _Plan:
    """Arguments of the autograd function that are not tensors, and the totals that it returns."""

    distance: Measure
    terms: BlockTerms
    divisor: Callable[[Totals], Tensor]
    own: bool
    gradient: bool
    all_processes: bool
    totals: Totals | None = None


class _BlockwiseFunction(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, plan: _Plan, *sources: Tensor) -> Tensor:
        wanted = [plan.gradient and needed for needed in ctx.needs_input_grad[1:]]
        gradients = [torch.zeros_like(source) if need else None for source, need in zip(sources, wanted, strict=True)]
        spans = list(blocks(len(sources[0]), len(sources[0 if plan.own else 1]), sources[0].element_size()))
        sums = _Sums(len(spans))
        for rows in spans:
            sums.add(_run_block(plan, sources, gradients, rows))
        totals = sums.totals(sources[0])
        plan.totals = _over_processes(totals) if plan.all_processes else totals
        divisor = plan.divisor(plan.totals).clamp(min=1)
        ctx.save_for_backward(divisor, *(gradient for gradient in gradients if gradient is not None))
        ctx.wanted = wanted
        ctx.processes = world_size() if plan.all_processes else 1
        return (plan.totals.loss / divisor).to(sources[0].dtype)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        divisor, *gradients = ctx.saved_tensors
        scale = ctx.processes * grad_outputs[0] / divisor
        remaining = iter(gradients)
        return (None, *(next(remaining) * scale.to(grad_outputs[0].dtype) if want else None for want in ctx.wanted))


def _run_block(plan: _Plan, sources: tuple[Tensor, ...], gradients: list[Tensor | None], rows: slice) -> BlockResult:
    """Mine one block, and add its gradient to ``gradients``."""
    needed = any(gradient is not None for gradient in gradients)
    with torch.set_grad_enabled(needed):
        query = sources[0].detach()[rows].requires_grad_(needed)  # (A, D)
        reference = sources[0 if plan.own else 1].detach().requires_grad_(needed)  # (M, D)
        distances = plan.distance(query, reference)  # (A, M)
    result = plan.terms(distances.detach(), rows, needed)
    if result.sum.gradient is not None and distances.requires_grad:
        other = 0 if plan.own else 1
        inputs = (query, reference, *sources[other + 1 :])
        parts = torch.autograd.grad(distances, inputs, result.sum.gradient, allow_unused=True)
        of_rows = None if gradients[0] is None else gradients[0][rows]
        for gradient, part in zip((of_rows, *gradients[other:]), parts, strict=True):
            if gradient is not None and part is not None:
                gradient.add_(part)
    return result._replace(sum=result.sum._replace(gradient=None))


def blocks(anchors: int, references: int, element_size: int) -> Iterator[slice]:
    """Divide the anchors into blocks whose ``(A, M)`` tensors fit into :data:`MEMORY_BUDGET` bytes."""
    size = max(1, MEMORY_BUDGET // max(1, _TENSORS_PER_BLOCK * element_size * references))
    for start in range(0, anchors, size):
        yield slice(start, min(start + size, anchors))


class _Sums:
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
        rows = torch.tensor(len(query), device=query.device)
        if not self._fields:
            zero = torch.zeros_like(rows)
            return Totals(zero.double(), zero, zero, rows, zero, None)
        totals = [field if field is None or field.dim() == 0 else field.sum() for field in self._fields]
        loss, active, anchors, selected, *census = totals
        assert loss is not None  # every block has the first three
        assert active is not None
        assert anchors is not None
        return Totals(loss, active, anchors, rows, selected, None if census[0] is None else BlockCensus._make(census))


def _over_processes(totals: Totals) -> Totals:
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
