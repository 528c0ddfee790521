"""Which references are positives and negatives of which anchors.

Shapes: A = anchors in the block, M = references, K = most positives of any anchor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PairMasks(NamedTuple):
    """Bool masks of one block, each ``(A, M)``; a pair may be neither, never both."""

    positive: Tensor
    negative: Tensor


class PairRule(NamedTuple):
    """Everything that decides about pairs, for all anchors; :meth:`masks` answers for a block of them.

    Attributes:
        labels: Class of each anchor, ``(B,)``, or None if masks are given.
        reference_labels: Class of each reference, ``(M,)``.
        ids: Identity of each anchor, ``(B,)``, or None.
        reference_ids: Identity of each reference, ``(M,)``. Equal ids are never a pair.
        positives: Mask ``(B, M)`` that replaces the labels, or None.
        negatives: Mask ``(B, M)`` that replaces the labels, or None.
        own: True if the references are the anchors themselves: the diagonal is never a pair.
    """

    labels: Tensor | None
    reference_labels: Tensor | None
    ids: Tensor | None
    reference_ids: Tensor | None
    positives: Tensor | None
    negatives: Tensor | None
    own: bool

    def masks(self, rows: slice) -> PairMasks:
        """The masks of the anchors in ``rows``."""
        if self.positives is not None:
            positive = self.positives[rows].clone()  # (A, M)
            negative = ~positive if self.negatives is None else self.negatives[rows] & ~positive
        elif self.labels is not None and self.reference_labels is not None:
            positive = self.labels[rows, None] == self.reference_labels  # (A, M)
            negative = ~positive if self.negatives is None else self.negatives[rows] & ~positive
        else:
            raise ValueError("pairs need labels or masks")
        if self.own:
            place = torch.arange(rows.start, rows.stop, device=positive.device)[:, None]  # (A, 1)
            positive.scatter_(1, place, False)
            negative.scatter_(1, place, False)
        if self.ids is not None and self.reference_ids is not None:
            same = self.ids[rows, None] == self.reference_ids  # (A, M)
            positive &= ~same
            negative &= ~same
        return PairMasks(positive, negative)


class Slots(NamedTuple):
    """The positives of each anchor, packed to the left.

    Attributes:
        column: Column of each positive, int64 ``(A, K)``; 0 where there is none.
        valid: Whether there is one, bool ``(A, K)``.
    """

    column: Tensor
    valid: Tensor


def positive_slots(positive: Tensor) -> Slots:
    """Pack the columns of a mask ``(A, M)`` to the left: ``(A, K)``.

    Example:
        >>> slots = positive_slots(torch.tensor([[False, True, True], [True, False, False]]))
        >>> slots.column.tolist(), slots.valid.tolist()
        ([[1, 2], [0, 0]], [[True, True], [True, False]])
    """
    count = positive.sum(dim=1)  # (A,)
    row, column = positive.nonzero(as_tuple=True)  # (n,), (n,)
    first = count.cumsum(0) - count  # (A,)
    place = torch.arange(len(row), device=row.device) - first.index_select(0, row)  # (n,)
    width = int(count.max()) if len(count) else 0
    packed = torch.zeros(len(count), width, dtype=torch.int64, device=positive.device)  # (A, K)
    packed[row, place] = column
    valid = torch.arange(width, device=positive.device) < count[:, None]  # (A, K)
    return Slots(packed, valid)
