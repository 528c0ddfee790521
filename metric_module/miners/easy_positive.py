"""The nearest positive and a near negative of each anchor."""

from __future__ import annotations

import math

from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import window_limit
from metric_module.miners.base import PaddedMiner, PaddedTriplets, Uniform
from metric_module.miners.positives import Candidates
from metric_module.miners.search import Found, ScanSearch, nearest

NEGATIVES = ("nearest", "semihard")


class EasyPositive(PaddedMiner):
    """One triplet per anchor: its nearest positive, and a near negative (Xuan et al. 2020, "Easy Positive").

    An item then has to be near some items of its class, not near all of them. The paper's two choices of a
    negative are ``"nearest"``, the smallest ``d_an`` (easy positive hard negative, EPHN), and ``"semihard"``, the
    smallest ``d_an > d_ap`` (easy positive semi-hard negative, EPSHN). The latter has no upper edge: it does not depend
    on the margin, and a negative beyond the margin has a hinge loss of zero.

    There are three differences from the paper. The loss is the criterion's, where the paper has a softmax over the two
    cosine similarities with a temperature; ``distance=cosine criterion=soft_triplet margin=0`` is that loss at
    temperature 1. A negative at exactly the positive's distance is hard, not semi-hard, as everywhere in this project.
    A positive that nearly equals the anchor counts; the authors' code ignores cosine similarities above 0.9999.

    Args:
        negative: ``"nearest"`` or ``"semihard"``. With the latter, an anchor without a negative farther than its
            nearest positive has no triplet.

    Raises:
        UserError: If ``negative`` is neither.

    Example:
        >>> import torch
        >>> distances = torch.tensor([[0.0, 0.5, 0.9, 0.4, 0.6]])
        >>> positive = torch.tensor([[False, True, True, False, False]])
        >>> negative = torch.tensor([[False, False, False, True, True]])
        >>> miner = EasyPositive("semihard")
        >>> [index.item() for index in miner.select(distances, positive, negative, 0.2, torch.rand)]
        [0, 1, 4]
    """

    def __init__(self, negative: str = "semihard") -> None:
        super().__init__()
        if negative not in NEGATIVES:
            raise UserError(f"easy positive: negative: expected one of {', '.join(NEGATIVES)}, got {negative!r}")
        self.negative = negative

    @override
    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Choose the nearest positive and a negative of every anchor with both."""
        column, valid, _ = block.slots
        d_ap, near = block.d_ap.masked_fill(~valid, math.inf).min(dim=1, keepdim=True)  # (A, 1), (A, 1)
        if self.negative == "nearest":
            found = nearest(block.values)  # (A, 1)
        else:
            value, place = ScanSearch(block.values).beyond(d_ap)  # (A, 1), (A, 1)
            found = Found(place, value < window_limit(value.dtype))
        return PaddedTriplets(column.gather(1, near), found.column, found.valid & valid[:, :1])
