"""Check that distances are numbers that the mining can compare and sum.

Shapes: A = anchors in the block, M = references, B = anchors, D = embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metric_module.checks import check_finite
from metric_module.criterion.totals import BlockResult
from metric_module.errors import UserError


def overflow_mark(distances: Tensor) -> Tensor:
    """Return NaN if a distance is NaN or beyond :func:`metric_module.functional.window_limit`, else 0, ``()``.

    Such a distance could be skipped by the miner without a trace. The mark is added to the loss, and summed over the
    blocks and processes, so that all of them raise the error of :func:`check_loss_is_finite`, and the host does not
    wait for a device.

    Args:
        distances: Distances ``(A, M)``.
    """
    if not distances.numel():
        return distances.new_zeros(())
    # The limit is an eighth of the largest number: beyond it the product with 8 is infinite.
    low, high = torch.aminmax(distances)
    return torch.maximum(high, -low) * 8 * 0


def mark_overflow(distances: Tensor, result: BlockResult) -> BlockResult:
    """Add :func:`overflow_mark` to the loss of a block."""
    return result._replace(sum=result.sum._replace(loss=result.sum.loss + overflow_mark(distances)))


def check_loss_is_finite(loss: Tensor, distance: nn.Module, embeddings: Tensor, reference: Tensor | None) -> None:
    """Accept a sum of losses that neither an embedding nor a distance made NaN or infinite.

    Args:
        loss: Sum of the losses, ``()``.
        distance: The distance, for the message.
        embeddings: The anchors, ``(B, D)``, for the message.
        reference: The references, ``(M, D)``, for the message; None if the anchors are their own.

    Raises:
        UserError: If the sum is NaN or infinite.
    """
    if math.isfinite(loss):
        return
    check_finite("embeddings", embeddings)
    if reference is not None:
        check_finite("reference", reference)
    longest = float(embeddings.detach().double().norm(dim=1).amax()) if len(embeddings) else 0.0
    raise UserError(
        f"{type(distance).__name__}: distances are NaN, or too large to add; the longest "
        f"embedding has length {longest:.3g}: set encoder.normalize=true, or lower the learning rate"
    )
