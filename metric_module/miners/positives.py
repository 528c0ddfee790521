"""Positives and negatives of a block of anchors, as slots and as masks.

Shapes: A = anchors in the block, B = anchors, M = references, K = most positives of any anchor in the block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Slots(NamedTuple):
    """The positives of each anchor, packed to the left.

    Attributes:
        column: Column of each positive, int64 ``(A, K)``; any column in an empty slot.
        valid: Whether the slot is filled, bool ``(A, K)``.
    """

    column: Tensor
    valid: Tensor


class Pairs(NamedTuple):
    """Positives of one block as slots, and a mask of the references that are not negatives.

    Attributes:
        slots: The positives.
        barred: 0 where a reference is a negative of the anchor and 1 elsewhere, floating point ``(A, M)``.
    """

    slots: Slots
    barred: Tensor


class PairMasks(NamedTuple):
    """Bool masks of one block, each ``(A, M)``; a pair may be neither, never both."""

    positive: Tensor
    negative: Tensor


def dense_codes(values: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map equal integers to equal codes from 0, as float32 ``(B,)`` and, for the others, ``(M,)``.

    Floats compare many times faster than int64, and float32 is exact for up to 2^24 codes. Without others both results
    are the same tensor.
    """
    together = values if others is None else torch.cat([values, others])
    codes = torch.unique(together, return_inverse=True)[1].float()  # (B,) or (B + M,)
    return (codes, codes) if others is None else (codes[: len(values)], codes[len(values) :])


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


def most_first(number: Tensor) -> Tensor | None:
    """Order that sorts numbers ``(B,)`` in descending order, int64 ``(B,)``; None if they are sorted.

    Example:
        >>> most_first(torch.tensor([1, 3, 3])).tolist()
        [1, 2, 0]
    """
    descending = bool((number[1:] <= number[:-1]).all())
    return None if descending else number.argsort(descending=True, stable=True)
