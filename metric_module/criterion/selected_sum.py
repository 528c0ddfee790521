"""Sum of the loss over the triplets that a selecting miner selects, for one block of anchors.

Shapes: A = anchors in the block, M = references, T = triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.criterion.window_sum import BlockSum
from metric_module.errors import UserError
from metric_module.miners import SelectingMiner, Uniform
from metric_module.miners.positives import PairMasks


def selected_sum(
    distances: Tensor,
    masks: PairMasks,
    miner: SelectingMiner,
    uniform: Uniform,
    margin: float,
    loss: str,
    *,
    gradient: bool,
) -> BlockSum:
    """Sum the loss over the triplets that the miner selects.

    Args:
        distances: Distances ``(A, M)``, without gradient.
        masks: Positives and negatives.
        miner: Selects the triplets.
        uniform: Random numbers of the anchors.
        margin: In units of the distance.
        loss: ``"hinge"`` or ``"soft"``.
        gradient: Whether to compute the gradient.

    Raises:
        UserError: If the miner selects a triplet whose pairs are not in the masks.
    """
    anchor, positive, negative = miner.select(distances, masks.positive, masks.negative, margin, uniform)
    width = distances.shape[1]
    flat = distances.flatten()  # (A * M,)
    ap, an = anchor * width + positive, anchor * width + negative  # (T,), (T,)
    valid = masks.positive.flatten().index_select(0, ap) & masks.negative.flatten().index_select(0, an)  # (T,)
    if not bool(valid.all()):
        raise UserError(f"{type(miner).__name__}.select: named a triplet whose pairs are not in the masks it was given")
    excess = (flat.index_select(0, ap) + margin) - flat.index_select(0, an)  # (T,)
    selected = torch.tensor(len(anchor), device=distances.device)
    if loss == "hinge":
        inside = excess > 0  # (T,)
        weight, value, active = inside.to(distances), excess.clamp(min=0), inside.sum()  # (T,), (T,), ()
    else:
        weight, value, active = excess.sigmoid(), -logsigmoid(-excess), selected  # (T,), (T,), ()
    slope = None
    if gradient:
        slope = torch.zeros_like(flat).index_add_(0, ap, weight).index_add_(0, an, -weight).view_as(distances)  # (A, M)
    return BlockSum(value.sum(dtype=torch.float64), selected, active, slope)
