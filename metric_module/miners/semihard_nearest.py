"""One semi-hard negative for each positive pair."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.miners.base import SelectingMiner, Triplets, Uniform
from metric_module.miners.search import Found, ScanSearch, Search, SortSearch, far, nearest, only
from metric_module.pairs import positive_slots

PICKS = ("nearest", "random")
FALLBACKS = ("skip", "hardest", "nearest_easy")

SORT_FROM = 40
"""Number of an anchor's positives from which on one sort costs less than a scan for each of them."""


class SemihardNearest(SelectingMiner):
    """For every positive pair one negative with ``d_ap < d_an <= d_ap + margin``.

    All anchor-positive pairs with a semi-hard negative each are what FaceNet trains on (Schroff et al. 2015, section
    3.2, equation 4). The paper leaves open which one of them: here it is the nearest, or one drawn uniformly at random.
    A tie, ``d_an = d_ap``, is hard and not semi-hard; equally near negatives are taken in their order in the batch.

    Args:
        pick: ``"nearest"`` or ``"random"``: which of the semi-hard negatives.
        fallback: What a pair without any gets. ``"skip"``: nothing. ``"hardest"``: the nearest of all negatives.
            ``"nearest_easy"``: the nearest negative beyond ``d_ap + margin``, or nothing if all are hard; its hinge
            loss is zero, so it teaches only a soft loss.

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
        """One negative for every positive pair that has one to give."""
        slots = positive_slots(positive)
        draw = uniform(slots.column.shape[1]) if self.pick == "random" else None  # (A, K)
        # An anchor's own positives decide how it is searched, so that its draws do not depend on its block.
        many = slots.valid.sum(dim=1) > SORT_FROM  # (A,)
        parts = []
        for kind, chosen in ((ScanSearch, ~many), (SortSearch, many)):
            rows = chosen.nonzero().flatten()  # (R,)
            column, valid = (part.index_select(0, rows) for part in slots)  # (R, K), (R, K)
            block = distances.index_select(0, rows)  # (R, M)
            values = only(block, negative.index_select(0, rows))  # (R, M)
            if valid.numel() == 0:
                continue
            d_ap = block.gather(1, column)  # (R, K)
            found = self._negatives(kind(values), d_ap, margin, None if draw is None else draw.index_select(0, rows))
            row, slot = (valid & found.valid).nonzero(as_tuple=True)  # (T,), (T,)
            parts.append(Triplets(rows.index_select(0, row), column[row, slot], found.column[row, slot]))
        none = slots.column.new_empty(0)
        return Triplets(*(torch.cat([none, *part]) for part in zip(*parts, strict=True))) if parts else _none(none)

    def _negatives(self, search: Search, d_ap: Tensor, margin: float, draw: Tensor | None) -> Found:
        """A negative for each positive at ``d_ap`` ``(R, K)``."""
        high = d_ap + margin  # (R, K)
        found = None if draw is None else search.drawn(d_ap, high, draw)
        if found is None or self.fallback == "nearest_easy":
            # Where nothing is semi-hard, the nearest beyond the positive is the nearest easy one.
            value, column = search.beyond(d_ap)  # (R, K), (R, K)
            reach = torch.full_like(high, far(high)) if self.fallback == "nearest_easy" else high
            beyond = Found(column, value <= reach)
            found = beyond if found is None else _first(found, beyond)
        return _first(found, nearest(search.values)) if self.fallback == "hardest" else found


def _first(found: Found, other: Found) -> Found:
    """What was found, and else the other."""
    return Found(torch.where(found.valid, found.column, other.column), found.valid | other.valid)
