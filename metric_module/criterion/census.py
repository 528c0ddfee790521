"""Census of a batch: counts of easy, semi-hard and hard triplets, and mean distances of pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion.window_sum import Negatives, whole
from metric_module.miners.positives import Slots


class Census(NamedTuple):
    """Counts (int64) and means (float) over one call of the criterion, each a 0-dimensional tensor.

    Attributes:
        easy: Valid triplets with ``d_an > d_ap + margin``.
        semihard: Valid triplets with ``d_ap < d_an <= d_ap + margin``.
        hard: Valid triplets with ``d_an <= d_ap``.
        selected: Triplets that the miner selected.
        active: Selected triplets with a non-zero loss; for the soft loss all of them.
        anchors: Anchors with at least one positive and one negative.
        lone_anchors: Anchors without a positive or without a negative. They contribute nothing.
        mean_d_ap: Mean distance of positive pairs, over the anchors counted in ``anchors``; NaN if there are none.
        mean_d_an: Mean distance of negative pairs, over the same anchors.

    ``easy``, ``semihard``, ``hard`` and the two means are None when the census is switched off; so is ``selected``
    with a window miner, unless the reduction needs it: the hinge counts active triplets alone.
    """

    easy: Tensor | None
    semihard: Tensor | None
    hard: Tensor | None
    selected: Tensor | None
    active: Tensor
    anchors: Tensor
    lone_anchors: Tensor
    mean_d_ap: Tensor | None
    mean_d_an: Tensor | None


def shares(census: Census) -> dict[str, Tensor]:
    """Compute the share of each category in the valid triplets, in [0, 1], by name (``train/easy``)."""
    counts = {"easy": census.easy, "semihard": census.semihard, "hard": census.hard}
    counted = {name: count for name, count in counts.items() if count is not None}
    total = torch.stack(list(counted.values())).sum().clamp(min=1)
    return {f"train/{name}": count / total for name, count in counted.items()}


class BlockCensus(NamedTuple):
    """Counts int64 ``()`` and sums float64 ``()`` over every valid triplet and pair of a block."""

    easy: Tensor
    semihard: Tensor
    hard: Tensor
    positive_pairs: Tensor
    negative_pairs: Tensor
    sum_d_ap: Tensor
    sum_d_an: Tensor


def block_census(negatives: Negatives, margin: float, sum_d_an: Tensor) -> BlockCensus:
    """Count the triplets of each category, and sum the distances of pairs, over anchors with pairs of both kinds.

    Args:
        negatives: The block.
        margin: In units of the distance.
        sum_d_an: Sum of the distances of each anchor to its negatives, ``(A,)``.
    """
    block, number, counter = negatives
    hard, within = counter.at_most(block.d_ap), counter.at_most(block.d_ap + margin)  # (A, K), (A, K)
    return census_of(block.slots, number, block.d_ap, hard, within, sum_d_an)


def census_of(
    slots: Slots, number: Tensor, d_ap: Tensor, hard: Tensor, within: Tensor, sum_d_an: Tensor
) -> BlockCensus:
    """Count and sum, from the numbers of negatives up to two edges.

    Args:
        slots: The positives of the anchors.
        number: Number of negatives of each anchor, ``(A,)``.
        d_ap: Distance of each positive, ``(A, K)``.
        hard: Number of negatives at or below ``d_ap``, ``(A, K)``.
        within: Number of negatives at or below ``d_ap + margin``, ``(A, K)``.
        sum_d_an: Sum of the distances of each anchor to its negatives, ``(A,)``.
    """
    usable = slots.valid & (number > 0)[:, None]  # (A, K)
    paired = usable.any(dim=1)  # (A,)
    triplets, up_to_margin, up_to_positive = whole(number[:, None] * usable), whole(within), whole(hard)
    return BlockCensus(
        easy=triplets - up_to_margin,
        semihard=up_to_margin - up_to_positive,
        hard=up_to_positive,
        positive_pairs=usable.sum(),
        negative_pairs=whole(number * paired),
        sum_d_ap=d_ap.where(usable, 0).sum(dtype=torch.float64),
        sum_d_an=(sum_d_an * paired).sum(dtype=torch.float64),
    )


def selected_in_window(census: BlockCensus, categories: frozenset[str]) -> Tensor:
    """Number of triplets in some categories, int64 ``()``."""
    return torch.stack([getattr(census, category) for category in sorted(categories)]).sum()
