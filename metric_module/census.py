"""What a batch had to teach: how many triplets are easy, semi-hard and hard, and how far pairs are apart."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Census(NamedTuple):
    """Counts (int64) and means (float) over one call of the criterion, each a 0-dimensional tensor.

    Attributes:
        easy: Valid triplets with ``d_an > d_ap + margin``.
        semihard: Valid triplets with ``d_ap < d_an <= d_ap + margin``.
        hard: Valid triplets with ``d_an <= d_ap``.
        selected: Triplets that the miner chose.
        active: Chosen triplets with a non-zero loss; for the soft loss every chosen one.
        anchors: Anchors with at least one positive and one negative.
        lone_anchors: Anchors without a positive or without a negative. They contribute nothing.
        mean_d_ap: Mean distance of positive pairs, over the anchors counted in ``anchors``; NaN if there are none.
        mean_d_an: Mean distance of negative pairs, over the same anchors.

    ``easy``, ``semihard``, ``hard`` and the two means are ``None`` when the census is switched off.
    """

    easy: Tensor | None
    semihard: Tensor | None
    hard: Tensor | None
    selected: Tensor
    active: Tensor
    anchors: Tensor
    lone_anchors: Tensor
    mean_d_ap: Tensor | None
    mean_d_an: Tensor | None
