"""Check that distances are numbers that the mining can compare and sum.

Shapes: A = anchors in the block, M = references, B = anchors, D = embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metric_module.criterion.blockwise import BlockResult
from metric_module.errors import UserError
from metric_module.functional import window_limit


def mark_overflow(distances: Tensor, result: BlockResult) -> BlockResult:
    """Make the loss of a block NaN if a distance is NaN or beyond :func:`metric_module.functional.window_limit`.

    Such a distance could be skipped by the miner without a trace. The mark is summed over the blocks and processes, so
    that all of them raise the error of :func:`check_loss_is_finite`, and the host does not wait for a device.

    Args:
        distances: Distances ``(A, M)``.
        result: Result of the block.
    """
    if not distances.numel():
        return result
    low, high = torch.aminmax(distances)
    limit = window_limit(distances.dtype)
    mark = torch.where((low >= -limit) & (high <= limit), 0.0, math.nan)  # () NaN if one of them is NaN
    return result._replace(sum=result.sum._replace(loss=result.sum.loss + mark))


def check_loss_is_finite(loss: Tensor, distance: nn.Module, embeddings: Tensor) -> None:
    """Accept a sum of losses that no distance made NaN or infinite.

    Args:
        loss: Sum of the losses, ``()``.
        distance: The distance, for the message.
        embeddings: The anchors, ``(B, D)``, for the message.

    Raises:
        UserError: If the sum is NaN or infinite.
    """
    if math.isfinite(loss):
        return
    longest = float(embeddings.detach().double().norm(dim=1).amax()) if len(embeddings) else 0.0
    raise UserError(
        f"{type(distance).__name__}: distances are NaN, or too large to add; the longest "
        f"embedding has length {longest:.3g}: set encoder.normalize=true, or lower the learning rate"
    )
