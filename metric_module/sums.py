"""Exact sums over the triplets of one block of anchors, without ever listing A x M x M of them.

Shapes: A = anchors in the block, M = references, K = most positives of any anchor, T = triplets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.errors import UserError
from metric_module.miners import SelectingMiner, Uniform, WindowMiner
from metric_module.pairs import PairMasks, positive_slots


class BlockSum(NamedTuple):
    """Sums over the chosen triplets of a block.

    Attributes:
        loss: Sum of the losses, ``()``.
        selected: Number of chosen triplets, int64 ``()``.
        active: Those with a non-zero loss, int64 ``()``.
        gradient: Derivative of ``loss`` by the distances, ``(A, M)``; None if it was not asked for.
    """

    loss: Tensor
    selected: Tensor
    active: Tensor
    gradient: Tensor | None


def window_sum(
    distances: Tensor, masks: PairMasks, miner: WindowMiner, margin: float, loss: str, *, gradient: bool
) -> BlockSum:
    """Sum over every triplet in the miner's window, one positive slot at a time, in ``O(A M)`` memory."""
    slots = positive_slots(masks.positive)
    d_ap = distances.gather(1, slots.column)  # (A, K)
    beyond = distances.masked_fill(~masks.negative, math.inf)  # (A, M), other than negatives never within a window
    total = distances.new_zeros((), dtype=torch.float64)
    selected = torch.zeros((), dtype=torch.int64, device=distances.device)
    active = selected.clone()
    slope = torch.zeros_like(distances) if gradient else None  # (A, M)
    for place in range(slots.column.shape[1]):
        pair, valid = d_ap[:, place, None], slots.valid[:, place, None]  # (A, 1), (A, 1)
        low, high = miner.window(pair, margin)
        chosen = _within(beyond, low, high) & valid  # (A, M)
        excess = (pair + margin) - beyond  # (A, M)
        number = chosen.sum()
        selected += number
        if loss == "hinge":
            chosen &= excess > 0
            number = chosen.sum()
            value, weight = torch.where(chosen, excess, 0), chosen.to(distances)  # (A, M), (A, M)
        else:
            value = torch.where(chosen, -logsigmoid(-excess), 0)  # (A, M)
            weight = torch.where(chosen, excess.sigmoid(), 0)  # (A, M)
        active += number
        total += value.sum(dtype=torch.float64)
        if slope is not None:
            slope -= weight
            slope.scatter_add_(1, slots.column[:, place, None], weight.sum(dim=1, keepdim=True))
    return BlockSum(total, selected, active, slope)


def _within(distances: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Which distances lie in ``(low, high]``; infinite ones, which are no negatives, never do."""
    upper = torch.as_tensor(high, dtype=distances.dtype, device=distances.device)
    return (distances > low) & (distances <= upper.clamp(max=torch.finfo(distances.dtype).max))


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
    """Sum over the triplets that the miner names."""
    anchor, positive, negative = miner.select(distances, masks.positive, masks.negative, margin, uniform)
    if not bool((masks.positive[anchor, positive] & masks.negative[anchor, negative]).all()):
        raise UserError(f"{type(miner).__name__}.select: named a triplet whose pairs are not in the masks it was given")
    width = distances.shape[1]
    flat = distances.flatten()  # (A * M,)
    ap, an = anchor * width + positive, anchor * width + negative  # (T,), (T,)
    excess = (flat.index_select(0, ap) + margin) - flat.index_select(0, an)  # (T,)
    if loss == "hinge":
        weight = (excess > 0).to(distances)  # (T,)
        value, active = excess.clamp(min=0), (excess > 0).sum()
    else:
        weight, value = excess.sigmoid(), -logsigmoid(-excess)  # (T,), (T,)
        active = torch.tensor(len(anchor), device=distances.device)
    slope = None
    if gradient:
        slope = torch.zeros_like(flat).index_add_(0, ap, weight).index_add_(0, an, -weight).view_as(distances)  # (A, M)
    selected = torch.tensor(len(anchor), device=distances.device)
    return BlockSum(value.sum(dtype=torch.float64), selected, active, slope)


class BlockCensus(NamedTuple):
    """Counts int64 ``()`` and sums float64 ``()`` over every valid triplet and pair of a block."""

    easy: Tensor
    semihard: Tensor
    hard: Tensor
    positive_pairs: Tensor
    negative_pairs: Tensor
    sum_d_ap: Tensor
    sum_d_an: Tensor


def block_census(distances: Tensor, masks: PairMasks, margin: float) -> BlockCensus:
    """Count the triplets of each category, and sum the distances of pairs, over anchors that have both kinds."""
    paired = masks.positive.any(dim=1) & masks.negative.any(dim=1)  # (A,)
    slots = positive_slots(masks.positive & paired[:, None])
    d_ap = distances.gather(1, slots.column)  # (A, K)
    beyond = distances.masked_fill(~masks.negative, math.inf)  # (A, M)
    negatives = masks.negative.sum(dim=1)  # (A,)
    within = hard = torch.zeros((), dtype=torch.int64, device=distances.device)
    for place in range(slots.column.shape[1]):
        pair, valid = d_ap[:, place, None], slots.valid[:, place, None]  # (A, 1), (A, 1)
        hard = hard + ((beyond <= pair) & valid).sum()
        within = within + ((beyond <= pair + margin) & valid).sum()
    triplets = (negatives * slots.valid.sum(dim=1)).sum()
    used = masks.negative & paired[:, None]  # (A, M)
    return BlockCensus(
        easy=triplets - within,
        semihard=within - hard,
        hard=hard,
        positive_pairs=slots.valid.sum(),
        negative_pairs=used.sum(),
        sum_d_ap=torch.where(slots.valid, d_ap, 0).sum(dtype=torch.float64),
        sum_d_an=torch.where(used, distances, 0).sum(dtype=torch.float64),
    )
