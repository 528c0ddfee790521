"""Rules that decide which references are positives and negatives of which anchors: by label or by mask.

Shapes: B = anchors, A = anchors in the block, M = references, K = most positives of any anchor in the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.criterion.inputs import MiningInput
from metric_module.miners.positives import PairMasks, Pairs, Slots, dense_codes, equal, most_first, positive_slots


def pair_rule(given: MiningInput, *, sort: bool = False) -> PairRule:
    """Build the rule that decides which pairs are positive and which negative.

    Args:
        given: Checked input of the criterion.
        sort: See :class:`LabelPairs`.
    """
    own = given.reference is None
    reference_ids = given.ids if own else given.reference_ids
    if given.positives is not None:
        return MaskPairs(given.positives, given.negatives, given.ids, reference_ids, own)
    reference_labels = given.labels if own else given.reference_labels
    assert given.labels is not None  # the input was checked
    assert reference_labels is not None
    return LabelPairs(given.labels, reference_labels, given.negatives, given.ids, reference_ids, own, sort)


class PairRule(ABC):
    """A rule that decides about the pairs of all anchors, one block of them at a time.

    Args:
        negatives: Bool mask ``(B, M)``: which references may be negatives. None: all that are not positives.
        ids: Identity of each anchor, ``(B,)``, or None.
        reference_ids: Identity of each reference, ``(M,)``, or None. Equal ids are never a pair.
        own: True if the references are the anchors themselves: the diagonal is never a pair.
        order: The order in which a batch that is its own reference must be handed in, int64 ``(B,)``; None: as it is.
    """

    def __init__(
        self,
        negatives: Tensor | None,
        ids: Tensor | None,
        reference_ids: Tensor | None,
        own: bool,
        order: Tensor | None = None,
    ) -> None:
        self.negatives = negatives
        self.own = own
        self.order = order
        self.ids: Tensor | None = None
        self.reference_ids: Tensor | None = None
        if ids is not None and reference_ids is not None:
            self.ids, self.reference_ids = (self.ordered(codes) for codes in dense_codes(ids, reference_ids))

    def ordered(self, values: Tensor) -> Tensor:
        """Bring values of the anchors, ``(B, ...)``, into :attr:`order`; differentiable."""
        return values if self.order is None else values.index_select(0, self.order)

    @abstractmethod
    def pairs(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Slots of positives and barred references of the anchors in ``rows``, ``barred`` in ``dtype``."""

    @abstractmethod
    def related(self, rows: slice) -> Tensor:
        """Which references belong to the anchors in ``rows``, the anchor itself included: a new bool ``(A, M)``."""

    def masks(self, rows: slice) -> PairMasks:
        """Masks of the positives and negatives of the anchors in ``rows``."""
        positive = self.related(rows)  # (A, M)
        negative = ~positive if self.negatives is None else self.negatives[rows] & ~positive
        if self.own:
            positive.diagonal(rows.start).zero_()
            negative.diagonal(rows.start).zero_()
        if self.ids is not None and self.reference_ids is not None:
            other = ~equal(self.ids[rows], self.reference_ids, torch.float32).bool()
            positive, negative = positive & other, negative & other
        return PairMasks(positive, negative)

    def usable(self, rows: slice, masks: PairMasks) -> Tensor:
        """Which anchors in ``rows`` have a positive and a negative, from their masks: bool ``(A,)``."""
        return masks.positive.any(dim=1) & masks.negative.any(dim=1)


class LabelPairs(PairRule):
    """Pairs by class.

    Args:
        labels: Class of each anchor, int64 ``(B,)``.
        reference_labels: Class of each reference, int64 ``(M,)``.
        negatives: Bool mask ``(B, M)``: which references of other classes are negatives. None: all.
        ids: See :class:`PairRule`.
        reference_ids: See :class:`PairRule`.
        own: See :class:`PairRule`.
        sort: Whether to put large classes first, which is faster for classes of uneven size.
    """

    def __init__(
        self,
        labels: Tensor,
        reference_labels: Tensor,
        negatives: Tensor | None,
        ids: Tensor | None,
        reference_ids: Tensor | None,
        own: bool,
        sort: bool = False,
    ) -> None:
        codes, reference_codes = dense_codes(labels, None if own else reference_labels)
        number = reference_codes.long().bincount()  # (C,), references in each class
        if not own:
            number = torch.cat([number, number.new_zeros(len(labels))])  # classes that no reference has
        size = number.index_select(0, codes.long())  # (B,)
        order = most_first(size) if sort and own and negatives is None else None
        super().__init__(negatives, ids, reference_ids, own, order)
        self.size, self.codes, self.reference_codes = (self.ordered(part) for part in (size, codes, reference_codes))

    @cached_property
    def _spans(self) -> tuple[Tensor, Tensor]:
        """References sorted by class, ``(M,)``, and the start of each anchor's class among them, ``(B,)``."""
        order = self.reference_codes.argsort(stable=True)  # (M,)
        return order, torch.searchsorted(self.reference_codes.index_select(0, order), self.codes)

    @cached_property
    def _place(self) -> Tensor:
        """Position of each anchor in the span of its class, ``(B,)``, for a batch that is its own reference."""
        order, start = self._spans
        step = torch.arange(len(order), device=order.device)
        return torch.empty_like(order).index_copy_(0, order, step) - start

    @override
    def pairs(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Slots of positives and barred references of the anchors in ``rows``, ``barred`` in ``dtype``."""
        barred = equal(self.codes[rows], self.reference_codes, dtype)  # (A, M)
        if self.ids is not None and self.reference_ids is not None:
            torch.maximum(barred, equal(self.ids[rows], self.reference_ids, dtype), out=barred)
        if self.negatives is not None:
            torch.maximum(barred, (~self.negatives[rows]).to(dtype), out=barred)
        return Pairs(self._slots(rows), barred)

    @override
    def related(self, rows: slice) -> Tensor:
        """Which references have the classes of the anchors in ``rows``: bool ``(A, M)``."""
        return equal(self.codes[rows], self.reference_codes, torch.float32).bool()

    @override
    def usable(self, rows: slice, masks: PairMasks) -> Tensor:
        """Which anchors in ``rows`` have a positive and a negative; from class sizes if nothing else decides."""
        if self.ids is not None or self.negatives is not None:
            return super().usable(rows, masks)
        size = self.size[rows]  # (A,)
        return (size > int(self.own)) & (size < len(self.reference_codes))

    def _slots(self, rows: slice) -> Slots:
        """Positives from the spans of the classes, without a pass over ``(A, M)``."""
        order, starts = self._spans
        start, size = starts[rows, None], self.size[rows, None]  # (A, 1), (A, 1)
        width = int(size.max()) - int(self.own) if len(size) else 0
        step = torch.arange(max(0, width), device=size.device)  # (K,)
        if self.own:
            valid = step < size - 1  # (A, K)
            step = step + (step >= self._place[rows, None])  # (A, K), skips the anchor itself
        else:
            valid = step < size  # (A, K)
        column = order[(start + step).clamp_(max=len(order) - 1)]  # (A, K)
        if self.ids is None or self.reference_ids is None:
            return Slots(column, valid)
        valid &= self.reference_ids[column] != self.ids[rows, None]
        packed = valid.logical_not().sort(dim=1, stable=True)
        return Slots(column.gather(1, packed.indices), ~packed.values)


class MaskPairs(PairRule):
    """Pairs by mask.

    Args:
        positives: Bool ``(B, M)``.
        negatives: Bool ``(B, M)``. None: every pair that is not positive is negative.
        ids: See :class:`PairRule`.
        reference_ids: See :class:`PairRule`.
        own: See :class:`PairRule`.
    """

    def __init__(
        self,
        positives: Tensor,
        negatives: Tensor | None,
        ids: Tensor | None,
        reference_ids: Tensor | None,
        own: bool,
    ) -> None:
        super().__init__(negatives, ids, reference_ids, own)
        self.positives = positives

    @override
    def pairs(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Slots of positives and barred references of the anchors in ``rows``, ``barred`` in ``dtype``."""
        masks = self.masks(rows)
        return Pairs(positive_slots(masks.positive), (~masks.negative).to(dtype))

    @override
    def related(self, rows: slice) -> Tensor:
        """Rows of the mask of positives: bool ``(A, M)``."""
        return self.positives[rows].clone()
