"""Exact loss and gradient over blocks of anchors, in bounded memory.

The loss is a sum over anchors. Each block of anchors has its distances to all references computed, mined and summed;
its gradient is taken at once, with respect to the block, the references and any parameter of the distance; then the
block is dropped. Memory is ``O(block * M + M * D)`` whatever the batch.

Shapes: B = anchors, A = anchors in a block, M = references, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
"""Bytes that the ``(A, M)`` tensors of one block may take together."""

_TENSORS_PER_BLOCK = 8


class Totals(NamedTuple):
    """Sums over all anchors, before normalisation, each ``()``; ``selected`` and ``census`` are None if not counted."""

    loss: Tensor
    selected: Tensor | None
    active: Tensor
    anchors: Tensor
    rows: Tensor
    census: BlockCensus | None


class BlockResult(NamedTuple):
    """What one block contributes."""

    sum: BlockSum
    anchors: Tensor
    census: BlockCensus | None


BlockTerms = Callable[[Tensor, slice, bool], BlockResult]
"""``terms(distances (A, M), rows, gradient)`` mines one block and sums its loss."""


def blockwise_loss(
    query: Tensor,
    reference: Tensor | None,
    distance: Measure,
    learnable: Sequence[Tensor],
    terms: BlockTerms,
    divisor: Callable[[Totals], Tensor],
    *,
    across_ranks: bool = False,
) -> tuple[Tensor, Totals]:
    """Sum the loss over all anchors, block by block, and divide it once at the end.

    Args:
        query: Anchors ``(B, D)``.
        reference: References ``(M, D)``; None if the anchors are their own.
        distance: Gives ``(A, M)`` for a block of anchors.
        learnable: Parameters of the distance that get a gradient.
        terms: Mines one block and sums its loss.
        divisor: What to divide the summed loss by, from the totals, ``()``.
        across_ranks: Whether the anchors of all ranks are summed. The gradient is then that of this rank's anchors
            times the number of ranks, for the mean that data-parallel training takes.

    Returns:
        The loss ``()``, differentiable with respect to ``query``, ``reference`` and ``learnable``, and the totals.
    """
    sources = [query, *([] if reference is None else [reference]), *learnable]
    plan = _Plan(distance, terms, divisor, reference is None, torch.is_grad_enabled(), across_ranks)
    loss: Tensor = _BlockwiseFunction.apply(plan, *sources)
    if plan.totals is None:
        raise RuntimeError("the blockwise loss was not computed")
    return loss, plan.totals


class _Plan:
    """Carries what is not a tensor into the autograd function, and the totals out of it."""

    def __init__(
        self,
        distance: Measure,
        terms: BlockTerms,
        divisor: Callable[[Totals], Tensor],
        own: bool,
        gradient: bool,
        across_ranks: bool,
    ) -> None:
        self.distance = distance
        self.terms = terms
        self.divisor = divisor
        self.own = own
        self.gradient = gradient
        self.across_ranks = across_ranks
        self.totals: Totals | None = None


class _BlockwiseFunction(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, plan: _Plan, *sources: Tensor) -> Tensor:
        wanted = [plan.gradient and needed for needed in ctx.needs_input_grad[1:]]
        gradients = [torch.zeros_like(source) if need else None for source, need in zip(sources, wanted, strict=True)]
        results = [
            _run_block(plan, sources, gradients, rows)
            for rows in blocks(len(sources[0]), len(sources[0 if plan.own else 1]), sources[0].element_size())
        ]
        totals = _add_up(results, sources[0])
        plan.totals = _over_ranks(totals) if plan.across_ranks else totals
        divisor = plan.divisor(plan.totals).clamp(min=1)
        ctx.save_for_backward(divisor, *(gradient for gradient in gradients if gradient is not None))
        ctx.wanted = wanted
        ctx.ranks = world_size() if plan.across_ranks else 1
        return (plan.totals.loss / divisor).to(sources[0].dtype)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        divisor, *gradients = ctx.saved_tensors
        scale = ctx.ranks * grad_outputs[0] / divisor
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
        inputs = (query, reference, *sources[1 if plan.own else 2 :])
        parts = torch.autograd.grad(distances, inputs, result.sum.gradient, allow_unused=True)
        _add(gradients[0], parts[0], rows)
        for gradient, part in zip(gradients[:1] if plan.own else gradients[1:2], parts[1:2], strict=True):
            _add(gradient, part)
        for gradient, part in zip(gradients[1 if plan.own else 2 :], parts[2:], strict=True):
            _add(gradient, part)
    return result._replace(sum=result.sum._replace(gradient=None))


def _add(total: Tensor | None, part: Tensor | None, rows: slice | None = None) -> None:
    if total is not None and part is not None:
        (total if rows is None else total[rows]).add_(part)


def blocks(anchors: int, references: int, element_size: int) -> Iterator[slice]:
    """Cut the anchors into blocks whose ``(A, M)`` tensors stay within :data:`MEMORY_BUDGET` bytes."""
    size = max(1, MEMORY_BUDGET // max(1, _TENSORS_PER_BLOCK * element_size * references))
    for start in range(0, anchors, size):
        yield slice(start, min(start + size, anchors))


def _add_up(results: list[BlockResult], query: Tensor) -> Totals:
    """Totals over the blocks; zeros if there is none."""

    def total(values: list[Tensor], dtype: torch.dtype) -> Tensor:
        """Sum of one field over the blocks."""
        if len(values) == 1:
            return values[0]
        return torch.stack(values).sum() if values else torch.zeros((), dtype=dtype, device=query.device)

    selected = [result.sum.selected for result in results if result.sum.selected is not None]
    census = [result.census for result in results if result.census is not None]
    return Totals(
        loss=total([result.sum.loss for result in results], torch.float64),
        selected=total(selected, torch.int64) if len(selected) == len(results) else None,
        active=total([result.sum.active for result in results], torch.int64),
        anchors=total([result.anchors for result in results], torch.int64),
        rows=torch.tensor(len(query), device=query.device),
        census=BlockCensus(*(total(list(part), part[0].dtype) for part in zip(*census, strict=True)))
        if census
        else None,
    )


def _over_ranks(totals: Totals) -> Totals:
    """Sum the totals of all ranks in one exchange; a rank without anchors may lack what the others counted."""
    taken = totals.census or [None] * len(BlockCensus._fields)
    parts = [totals.loss, totals.active, totals.anchors, totals.rows, totals.selected, *taken]
    given = [totals.selected is not None, totals.census is not None]
    values = [0 if part is None else part for part in (*parts, *given)]
    # Exact: no count reaches 2^53.
    packed = torch.tensor(values, dtype=torch.float64, device=totals.loss.device)  # (14,)
    loss, active, anchors, rows, selected, *census, with_selected, with_census = sum_over_ranks(packed).unbind()
    counts, sums = (part.long() for part in census[:5]), census[5:]
    return Totals(
        loss=loss,
        selected=selected.long() if with_selected else None,
        active=active.long(),
        anchors=anchors.long(),
        rows=rows.long(),
        census=BlockCensus(*counts, *sums) if with_census else None,
    )
