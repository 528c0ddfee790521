"""Positives and negatives of a block of anchors, as slots and as masks.

Shapes: A = anchors in the block, B = anchors, M = references, K = most positives of any anchor in the block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metric_module.functional import window_limit


class Slots(NamedTuple):
    """The positives of each anchor, packed to the left.

    Attributes:
        column: Column of each positive, int64 ``(A, K)``; any column in an empty slot.
        valid: Whether the slot is filled, bool ``(A, K)``.
        number: Number of positives of each anchor, int64 ``(A,)``, on the host.
    """

    column: Tensor
    valid: Tensor
    number: npt.NDArray[np.int64]

    @property
    def all_filled(self) -> bool:
        """Whether every anchor has as many positives as there are slots."""
        return self.column.shape[1] == 0 or int(self.number.min()) == self.column.shape[1]


class Pairs(NamedTuple):
    """Positives of one block as slots, and a mask of the references that are not negatives.

    Attributes:
        slots: The positives.
        barred: 0 where a reference is a negative of the anchor and 1 elsewhere, floating point ``(A, M)``.
        negatives: Number of negatives of each anchor, int64 or floating point ``(A,)``.
    """

    slots: Slots
    barred: Tensor
    negatives: Tensor


class PairMasks(NamedTuple):
    """Bool masks of one block, each ``(A, M)``; a pair may be neither, never both."""

    positive: Tensor
    negative: Tensor


class Candidates(NamedTuple):
    """One block of anchors, prepared for mining: positives in slots, negatives in a matrix.

    Attributes:
        distances: Distances ``(A, M)``.
        slots: The positives.
        d_ap: Distance of each positive, ``(A, K)``; ``-inf`` in empty slots.
        values: Distances ``(A, M)``. A reference that is not a negative of the anchor has twice ``window_limit`` added,
            and so lies beyond every finite edge of a window.
    """

    distances: Tensor
    slots: Slots
    d_ap: Tensor
    values: Tensor


def candidates(distances: Tensor, slots: Slots, barred: Tensor) -> Candidates:
    """Gather the distances of the positives, and move references that are not negatives beyond every window edge.

    Args:
        distances: Distances ``(A, M)``.
        slots: The positives.
        barred: 1 where a reference is not a negative, else 0, floating point ``(A, M)``; overwritten.
    """
    values = torch.add(distances, barred, alpha=2 * window_limit(distances.dtype), out=barred)  # (A, M)
    d_ap = distances.gather(1, slots.column)  # (A, K)
    if not slots.all_filled:
        d_ap.masked_fill_(~slots.valid, -math.inf)
    return Candidates(distances, slots, d_ap, values)


def equal(codes: Tensor, others: Tensor, dtype: torch.dtype) -> Tensor:
    """Compare codes ``(A,)`` and ``(M,)``: 1 where they agree, else 0, ``(A, M)``.

    The result is floating point because comparisons that write bools are not vectorised on CPUs.
    """
    out = torch.empty(len(codes), len(others), dtype=dtype, device=codes.device)
    return torch.eq(codes[:, None], others, out=out)


def positive_slots(positive: Tensor) -> Slots:
    """Pack the columns of a mask ``(A, M)`` to the left: ``(A, K)``.

    Example:
        >>> slots = positive_slots(torch.tensor([[False, True, True], [True, False, False]]))
        >>> slots.column.tolist(), slots.valid.tolist(), slots.number
        ([[1, 2], [0, 0]], [[True, True], [True, False]], array([2, 1]))
    """
    count = positive.sum(dim=1)  # (A,)
    number = count.numpy(force=True)
    row, column = positive.nonzero(as_tuple=True)  # (n,), (n,)
    first = count.cumsum(0) - count  # (A,)
    place = torch.arange(len(row), device=row.device) - first.index_select(0, row)  # (n,)
    packed = torch.zeros(len(count), number.max(initial=0), dtype=torch.int64, device=positive.device)  # (A, K)
    packed[row, place] = column
    valid = torch.arange(packed.shape[1], device=positive.device) < count[:, None]  # (A, K)
    return Slots(packed, valid, number)
