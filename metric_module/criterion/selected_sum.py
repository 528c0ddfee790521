"""Sum of the loss over the triplets that a selecting miner selects, for one block of anchors.

Shapes: A = anchors in the block, M = references, T = triplets, R = rows of triplets, S = triplets in a row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.criterion.window_sum import BlockSum, PairSlopes
from metric_module.errors import UserError
from metric_module.miners import SelectingMiner, Uniform
from metric_module.miners.base import PaddedTriplets
from metric_module.miners.positives import PairMasks


class Selected(NamedTuple):
    """Triplets of a block, S in a row for one anchor.

    Attributes:
        anchor: The anchor of each row, int64 ``(R,)``; None: the anchors of the block, one by one.
        positive: Column of the positive, int64 ``(R, S)``.
        negative: Column of the negative, int64 ``(R, S)``.
        valid: Whether it is a triplet and not padding, bool ``(R, S)``; None: all are.
    """

    anchor: Tensor | None
    positive: Tensor
    negative: Tensor
    valid: Tensor | None


def from_padded(found: PaddedTriplets) -> Selected:
    """Take padded triplets, with their padding."""
    return Selected(None, *found)


def from_miner(distances: Tensor, masks: PairMasks, miner: SelectingMiner, uniform: Uniform, margin: float) -> Selected:
    """Ask a miner for its triplets.

    Raises:
        UserError: If the miner selects a triplet whose pairs are not in the masks.
    """
    anchor, positive, negative = miner.select(distances.detach(), masks.positive, masks.negative, margin, uniform)
    valid = masks.positive[anchor, positive] & masks.negative[anchor, negative]  # (T,)
    if not bool(valid.all()):
        raise UserError(f"{type(miner).__name__}.select: named a triplet whose pairs are not in the masks it was given")
    return Selected(anchor, positive[:, None], negative[:, None], None)


def selected_sum(
    distances: Tensor, triplets: Selected, margin: float, loss: str, *, gradient: bool, by_pair: bool
) -> BlockSum:
    """Sum the loss over some triplets.

    Args:
        distances: Distances ``(A, M)``, without gradient.
        triplets: The triplets.
        margin: In units of the distance.
        loss: ``"hinge"`` or ``"soft"``.
        gradient: Whether to compute the gradient.
        by_pair: Whether to return it for the pairs of the triplets alone, not for all distances.
    """
    anchor, positive, negative, valid = triplets
    d_ap, d_an = (_of_pairs(distances, anchor, column) for column in (positive, negative))  # (R, S), (R, S)
    excess = (d_ap + margin) - d_an  # (R, S)
    if valid is not None:
        excess = torch.where(valid, excess, -math.inf)
    selected = torch.full((), positive.numel(), device=distances.device) if valid is None else valid.sum()
    if loss == "hinge":
        inside = excess > 0
        weight, value, active = inside.to(distances), excess.clamp(min=0), inside.sum()
    else:
        weight, value, active = excess.sigmoid(), -logsigmoid(-excess), selected
    slope: Tensor | PairSlopes | None = None
    if gradient:
        column, slopes = torch.cat([positive, negative], dim=1), torch.cat([weight, -weight], dim=1)  # (R, 2 S)
        slope = PairSlopes(anchor, column, slopes)
        if not by_pair:
            each = torch.arange(len(distances), device=column.device) if anchor is None else anchor  # (R,)
            place = each[:, None] * distances.shape[1] + column  # (R, 2 S)
            total = torch.zeros_like(distances).view(-1).index_add_(0, place.flatten(), slopes.flatten())  # (A * M,)
            slope = total.view_as(distances)  # (A, M)
    return BlockSum(value.sum(dtype=torch.float64), selected, active, slope)


def _of_pairs(distances: Tensor, anchor: Tensor | None, column: Tensor) -> Tensor:
    """Distances ``(A, M)`` of anchors ``(R,)``, or one by one, to columns ``(R, S)``: ``(R, S)``."""
    return distances.gather(1, column) if anchor is None else distances[anchor[:, None], column]
