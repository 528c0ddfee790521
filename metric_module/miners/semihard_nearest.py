"""One semi-hard negative for each positive pair.

Shapes: A = anchors in the block, R = some of them, M = references, K = most positives of any anchor, T = triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import window_limit
from metric_module.miners.base import PaddedMiner, PaddedTriplets, Uniform
from metric_module.miners.positives import Candidates
from metric_module.miners.search import Found, ScanSearch, Search, SortSearch, farthest, nearest

PICKS = ("nearest", "random")
FALLBACKS = ("skip", "hardest", "nearest_easy", "farthest")

SORT_FROM = 8
"""Number of an anchor's positives from which one sort costs less than a pass for each of them."""


class SemihardNearest(PaddedMiner):
    """For every positive pair one negative with ``d_ap < d_an <= d_ap + margin``.

    FaceNet trains on all anchor-positive pairs, each with a semi-hard negative (Schroff et al. 2015, section 3.2,
    equation 4). The paper does not say which of them; here it is the nearest, or one drawn uniformly at random. A
    negative at the positive's distance is hard, not semi-hard; of several equally near negatives the first counts.

    Args:
        pick: Which of the semi-hard negatives: ``"nearest"`` or ``"random"``.
        fallback: Negative of a pair without a semi-hard one. ``"skip"``: none. ``"hardest"``: the nearest of all
            negatives. ``"nearest_easy"``: the nearest negative beyond ``d_ap + margin``, if any; its hinge loss is
            zero, so it has an effect only with the soft loss. ``"farthest"``: the farthest of all negatives. With
            ``reduction="mean"``, this is the loss of TensorFlow Addons and of sentence-transformers.

    Raises:
        UserError: If an argument is not one of these.

    Example:
        >>> distances = torch.tensor([[0.0, 0.5, 0.4, 0.6, 0.7]])
        >>> positive = torch.tensor([[False, True, False, False, False]])
        >>> negative = torch.tensor([[False, False, True, True, True]])
        >>> SemihardNearest().select(distances, positive, negative, 0.3, torch.rand).negative
        tensor([3])
    """

    def __init__(self, pick: str = "nearest", fallback: str = "skip") -> None:
        super().__init__()
        for name, value, allowed in (("pick", pick, PICKS), ("fallback", fallback, FALLBACKS)):
            if value not in allowed:
                raise UserError(f"semihard nearest: {name}: expected one of {', '.join(allowed)}, got {value!r}")
        self.pick = pick
        self.fallback = fallback

    @override
    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Choose one negative for every positive pair, where there is one."""
        column, valid, number = block.slots
        draw = uniform(column.shape[1]) if self.pick == "random" else None  # (A, K)
        # The way to search depends on the anchor's own positives, so that its draws do not depend on its block.
        few = int((number <= SORT_FROM).sum())
        if few in {0, len(number)}:
            kind = ScanSearch if few else SortSearch
            found = self._negatives(kind(block.values), block.d_ap, margin, draw)
            return PaddedTriplets(column, found.column, valid & found.valid)
        chosen, wanted = torch.zeros_like(column), torch.zeros_like(valid)  # (A, K), (A, K)
        few_first = valid.sum(dim=1).argsort(stable=True)  # (A,)
        for kind, sort, rows in ((ScanSearch, False, few_first[:few]), (SortSearch, True, few_first[few:])):  # (R,)
            width = column.shape[1] if sort else min(SORT_FROM, column.shape[1])  # of these anchors, k
            d_ap = block.d_ap[:, :width].index_select(0, rows)  # (R, k)
            numbers = None if draw is None else draw[:, :width].index_select(0, rows)  # (R, k)
            found = self._negatives(kind(block.values.index_select(0, rows)), d_ap, margin, numbers)
            chosen[:, :width].index_copy_(0, rows, found.column)
            wanted[:, :width].index_copy_(0, rows, found.valid)
        return PaddedTriplets(column, chosen, valid & wanted)

    def _negatives(self, search: Search, d_ap: Tensor, margin: float, draw: Tensor | None) -> Found:
        """Find a negative for each positive with distance ``d_ap`` ``(R, K)``."""
        high = d_ap + margin  # (R, K)
        found = None if draw is None else search.drawn(d_ap, high, draw)
        if found is None or self.fallback == "nearest_easy":
            # Without a semi-hard negative, the nearest one beyond the positive is the nearest easy one.
            value, column = search.beyond(d_ap)  # (R, K), (R, K)
            within = value < window_limit(value.dtype) if self.fallback == "nearest_easy" else value <= high  # (R, K)
            found = _or_else(found, Found(column, within))
        if self.fallback in {"hardest", "farthest"}:
            return _or_else(found, (nearest if self.fallback == "hardest" else farthest)(search.values))
        return found


def _or_else(found: Found | None, other: Found) -> Found:
    """Use the other reference where none was found."""
    if found is None:
        return other
    return Found(torch.where(found.valid, found.column, other.column), found.valid | other.valid)
