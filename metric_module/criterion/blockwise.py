"""Exact loss and gradient over blocks of anchors, in bounded memory.

The loss is a sum over anchors. For each block of anchors, the distances to references are computed, mined and summed,
the gradient is computed with respect to the block, the references and any parameter of the distance, and the block is
freed. Memory is ``O(block * M + M * D)`` for any batch size.

Shapes: B = anchors, A = anchors in a block, M = references, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.criterion.sources import Sources
from metric_module.criterion.totals import Totals, over_processes
from metric_module.distances import Distance
from metric_module.distributed import world_size

Walk = Callable[[Sources], Totals]
"""``walk(sources)`` mines all anchors and adds up their gradients."""


def blockwise_loss(
    query: Tensor,
    reference: Tensor | None,
    distance: Distance,
    learnable: Sequence[Tensor],
    walk: Walk,
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
        walk: Mines all anchors, and adds up their gradients.
        divisor: Computes the divisor of the summed loss from the totals, ``()``.
        all_processes: Whether to sum over the anchors of all processes. The gradient is then that of this process's
            anchors times the world size, as data-parallel training averages gradients.

    Returns:
        The loss ``()``, differentiable with respect to ``query``, ``reference`` and ``learnable``, and the totals.
    """
    sources = [query, *([] if reference is None else [reference]), *learnable]
    plan = _Plan(distance, walk, divisor, reference is None, torch.is_grad_enabled(), all_processes)
    loss: Tensor = _BlockwiseFunction.apply(plan, *sources)
    if plan.totals is None:
        raise RuntimeError("the blockwise loss was not computed")
    return loss, plan.totals


@dataclass
class _Plan:
    """Arguments of the autograd function that are not tensors, and the totals that it returns."""

    distance: Distance
    walk: Walk
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
        given = Sources(plan.distance, sources, plan.own, wanted)
        totals = plan.walk(given)
        for rows in sources[: 1 if plan.own else 2]:
            totals = totals._replace(loss=totals.loss + (rows * 0).sum())  # NaN if one is NaN or infinite
        plan.totals = over_processes(totals) if plan.all_processes else totals
        divisor = plan.divisor(plan.totals).clamp(min=1)
        ctx.save_for_backward(divisor, *given.gradients())
        ctx.wanted = wanted
        ctx.processes = world_size() if plan.all_processes else 1
        return (plan.totals.loss / divisor).to(sources[0].dtype)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        divisor, *gradients = ctx.saved_tensors
        scale = grad_outputs[0] / divisor
        if ctx.processes > 1:
            scale = ctx.processes * scale
        remaining = iter(gradients)
        return (None, *(next(remaining) * scale.to(grad_outputs[0].dtype) if want else None for want in ctx.wanted))
