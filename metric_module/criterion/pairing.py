"""Rules that decide which references are positives and negatives of which anchors: by label or by mask.

Shapes: B = anchors, A = anchors in the block, M = references, K = most positives of any anchor in the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from metric_module.criterion.classes import Classes, own_classes, reference_classes
from metric_module.criterion.inputs import MiningInput
from metric_module.functional import rows_of, window_limit
from metric_module.miners.positives import Candidates, PairMasks, Pairs, Slots, equal, positive_slots


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
    assert given.labels is not None  # the input was checked
    sort = sort and own and given.negatives is None
    if own:
        classes = own_classes(given.labels, sort=sort)
    else:
        assert given.reference_labels is not None  # the input was checked
        classes = reference_classes(given.labels, given.reference_labels)
    return LabelPairs(classes, given.negatives, given.ids, reference_ids, own)


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
            classes = reference_classes(ids, reference_ids)
            self.ids, self.reference_ids = self.ordered(classes.code), self.ordered(classes.reference_code)

    def read(self, unsure: Tensor | None) -> bool:
        """Read a bool ``()`` from the device, and in the same go whatever the rule still needs; None is False."""
        return unsure is not None and bool(unsure)

    def ordered(self, values: Tensor) -> Tensor:
        """Bring values of the anchors, ``(B, ...)``, into :attr:`order`; differentiable."""
        return values if self.order is None else values.index_select(0, self.order)

    @abstractmethod
    def pairs(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Slots of positives and barred references of the anchors in ``rows``, ``barred`` in ``dtype``."""

    @abstractmethod
    def related(self, rows: slice) -> Tensor:
        """Which references belong to the anchors in ``rows``, the anchor itself included: a new bool ``(A, M)``."""

    def usable(self, rows: slice, pairs: Pairs) -> Tensor:
        """Number of anchors in ``rows`` with a positive and a negative, from their pairs: int64 ``()``."""
        return (pairs.slots.valid.any(dim=1) & (pairs.negatives > 0)).sum()

    def sum_d_an(self, rows: slice, block: Candidates) -> Tensor:
        """Sum the distances of each anchor in ``rows`` to its negatives, ``(A,)``."""
        values = block.values  # (A, M)
        return (
            torch.le(values, window_limit(values.dtype), out=torch.empty_like(values)).mul_(block.distances).sum(dim=1)
        )

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


class LabelPairs(PairRule):
    """Pairs by class.

    Args:
        classes: Classes of anchors and references.
        negatives: Bool mask ``(B, M)``: which references of other classes are negatives. None: all.
        ids: See :class:`PairRule`.
        reference_ids: See :class:`PairRule`.
        own: See :class:`PairRule`.
    """

    def __init__(
        self,
        classes: Classes,
        negatives: Tensor | None,
        ids: Tensor | None,
        reference_ids: Tensor | None,
        own: bool,
    ) -> None:
        super().__init__(negatives, ids, reference_ids, own, classes.order)
        self.classes = classes

    @override
    def read(self, unsure: Tensor | None) -> bool:
        """Read the sizes of the classes, if they were not read yet, and whether distances are unsure."""
        return self.classes.read(unsure)

    @property
    def only_classes(self) -> bool:
        """Whether nothing but the classes decides."""
        return self.ids is None and self.negatives is None

    @override
    def pairs(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Slots of positives and barred references of the anchors in ``rows``, ``barred`` in ``dtype``."""
        barred = equal(rows_of(self.classes.code, rows), self.classes.reference_code, dtype)  # (A, M)
        if self.only_classes:
            return Pairs(self._slots(rows), barred, barred.shape[1] - rows_of(self.classes.size, rows))
        if self.ids is not None and self.reference_ids is not None:
            torch.maximum(barred, equal(self.ids[rows], self.reference_ids, dtype), out=barred)
        if self.negatives is not None:
            torch.maximum(barred, (~self.negatives[rows]).to(dtype), out=barred)
        return Pairs(self._slots(rows), barred, barred.shape[1] - barred.sum(dim=1))

    def pairs_within(self, rows: slice, dtype: torch.dtype) -> Pairs:
        """Pairs of some anchors among themselves, if they have the whole of their classes and only classes decide.

        The number of negatives is that among all references.

        Args:
            rows: The anchors.
            dtype: Type of ``barred``.
        """
        code = self.classes.code[rows]  # (A,)
        slots = self._slots(rows)
        slots = slots._replace(column=(slots.column - rows.start).clamp_(max=len(code) - 1))
        return Pairs(slots, equal(code, code, dtype), len(self.classes.code) - self.classes.size[rows])

    @override
    def usable(self, rows: slice, pairs: Pairs) -> Tensor:
        """Number of anchors in ``rows`` with a positive and a negative; from class sizes if nothing else decides."""
        if not self.only_classes:
            return super().usable(rows, pairs)
        references = len(self.classes.reference_code)
        sizes = self.classes.sizes[rows]
        number = int(np.count_nonzero((sizes > int(self.own)) & (sizes < references)))
        return torch.full((), number, device=pairs.negatives.device)

    @override
    def sum_d_an(self, rows: slice, block: Candidates) -> Tensor:
        """Sum the distances to the negatives: if the classes alone decide, to all but the positives and the anchor."""
        if not self.only_classes:
            return super().sum_d_an(rows, block)
        d_ap = block.d_ap if block.slots.all_filled else block.d_ap.where(block.slots.valid, 0)  # (A, K)
        total = block.distances.sum(dim=1) - d_ap.sum(dim=1)  # (A,)
        return total - block.distances.diagonal(rows.start) if self.own else total

    @override
    def related(self, rows: slice) -> Tensor:
        """Which references have the classes of the anchors in ``rows``: bool ``(A, M)``."""
        return equal(self.classes.code[rows], self.classes.reference_code, torch.float32).bool()

    def _slots(self, rows: slice) -> Slots:
        """Positives from the spans of the classes, without a pass over ``(A, M)``."""
        classes, own = self.classes, int(self.own)
        start = classes.start[rows, None]  # (A, 1)
        number = classes.sizes[rows] - own
        width = int(number.max(initial=0))
        step = torch.arange(width, device=start.device)  # (K,)
        filled = width == 0 or width == int(number.min())
        if filled:
            valid = torch.ones(len(start), width, dtype=torch.bool, device=start.device)  # (A, K)
        else:
            valid = step < classes.size[rows, None] - own  # (A, K)
        if classes.place is not None:
            step = step + (step >= classes.place[rows, None])  # (A, K), skips the anchor itself
        column = start + step  # (A, K)
        if not filled:
            column.clamp_(max=len(classes.reference_code) - 1)
        if classes.members is not None:
            column = classes.members[column]  # (A, K)
        if self.ids is None or self.reference_ids is None:
            return Slots(column, valid, number)
        valid &= self.reference_ids[column] != self.ids[rows, None]
        packed = valid.logical_not().sort(dim=1, stable=True)
        valid = ~packed.values
        return Slots(column.gather(1, packed.indices), valid, valid.sum(dim=1).numpy(force=True))


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
        barred = (~masks.negative).to(dtype)  # (A, M)
        return Pairs(positive_slots(masks.positive), barred, barred.shape[1] - barred.sum(dim=1))

    @override
    def related(self, rows: slice) -> Tensor:
        """Rows of the mask of positives: bool ``(A, M)``."""
        return self.positives[rows].clone()
