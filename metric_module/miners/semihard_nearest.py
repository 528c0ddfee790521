"""One semi-hard negative for each positive pair.

Shapes: A = anchors in the block, R = some of them, M = references, K = most positives of any anchor, T = triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import out_of_reach, window_limit
from metric_module.miners.base import SelectingMiner, Triplets, Uniform
from metric_module.miners.positives import positive_slots
from metric_module.miners.search import Found, ScanSearch, Search, SortSearch, nearest

PICKS = ("nearest", "random")
FALLBACKS = ("skip", "hardest", "nearest_easy")

SORT_FROM = 32
"""Number of an anchor's positives from which one sort costs less than a pass for each of them."""


class SemihardNearest(SelectingMiner):
    """For every positive pair one negative with ``d_ap < d_an <= d_ap + margin``.

    FaceNet trains on all anchor-positive pairs, each with a semi-hard negative (Schroff et al. 2015, section 3.2,
    equation 4). The paper does not say which of them; here it is the nearest, or one drawn uniformly at random. A
    negative at the positive's distance is hard, not semi-hard; of several equally near negatives the first counts.

    Args:
        pick: Which of the semi-hard negatives: ``"nearest"`` or ``"random"``.
        fallback: Negative of a pair without a semi-hard one. ``"skip"``: none. ``"hardest"``: the nearest of all
            negatives. ``"nearest_easy"``: the nearest negative beyond ``d_ap + margin``, if any; its hinge loss is
            zero, so it has an effect only with the soft loss.

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
    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Select one negative for every positive pair, where there is one."""
        slots = positive_slots(positive)  # (A, K)
        draw = uniform(slots.column.shape[1]) if self.pick == "random" else None  # (A, K)
        # The way to search depends on the anchor's own positives, so that its draws do not depend on its block.
        many = slots.valid.sum(dim=1) > SORT_FROM  # (A,)
        column = torch.zeros_like(slots.column)  # (A, K)
        valid = torch.zeros_like(slots.valid)  # (A, K)
        for kind, rows in ((ScanSearch, (~many).nonzero().flatten()), (SortSearch, many.nonzero().flatten())):
            if len(rows) == 0:
                continue
            part = distances.index_select(0, rows)  # (R, M)
            search = kind(out_of_reach(part, negative.index_select(0, rows)))
            d_ap = part.gather(1, slots.column.index_select(0, rows))  # (R, K)
            numbers = None if draw is None else draw.index_select(0, rows)  # (R, K)
            column[rows], valid[rows] = self._negatives(search, d_ap, margin, numbers)
        anchor, slot = (valid & slots.valid).nonzero(as_tuple=True)  # (T,), (T,)
        return Triplets(anchor, slots.column[anchor, slot], column[anchor, slot])

    def _negatives(self, search: Search, d_ap: Tensor, margin: float, draw: Tensor | None) -> Found:
        """Find a negative for each positive with distance ``d_ap`` ``(R, K)``."""
        high = d_ap + margin  # (R, K)
        found = None if draw is None else search.drawn(d_ap, high, draw)
        if found is None or self.fallback == "nearest_easy":
            # Without a semi-hard negative, the nearest one beyond the positive is the nearest easy one.
            value, column = search.beyond(d_ap)  # (R, K), (R, K)
            within = value < window_limit(value.dtype) if self.fallback == "nearest_easy" else value <= high  # (R, K)
            found = _or_else(found, Found(column, within))
        return _or_else(found, nearest(search.values)) if self.fallback == "hardest" else found


def _or_else(found: Found | None, other: Found) -> Found:
    """Use the other reference where none was found."""
    if found is None:
        return other
    return Found(torch.where(found.valid, found.column, other.column), found.valid | other.valid)
