"""Rows of a sparse matrix, picked in any order; torch's sparse tensors warn that they are unfinished.

Shapes: R = rows, C = columns, A = picked rows, E = entries, which are the numbers that are stored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Entries(NamedTuple):
    """Numbers of a matrix with their places, in any order, ``(E,)`` each."""

    rows: Tensor  # int64
    columns: Tensor  # int64
    values: Tensor


class SparseRows(NamedTuple):
    """Entries of a matrix ``(R, C)`` by row and column; those of row r are at ``start[r]`` to ``start[r + 1] - 1``."""

    start: Tensor  # (R + 1,) int64
    columns: Tensor  # (E,) int64
    values: Tensor  # (E,)

    @classmethod
    def of(cls, entries: Entries, rows: int, columns: int) -> SparseRows:
        """Sort entries of a matrix of this size; those at the same place are added up.

        Example:
            >>> ones = torch.ones(3)
            >>> SparseRows.of(Entries(torch.tensor([1, 0, 1]), torch.tensor([2, 1, 2]), ones), 2, 3).values.tolist()
            [1.0, 2.0]
        """
        keys, place = torch.unique(entries.rows * columns + entries.columns, return_inverse=True)  # (E,), (E,)
        values = entries.values.new_zeros(len(keys)).index_add_(0, place, entries.values)  # (E,)
        start = torch.searchsorted(keys, torch.arange(rows + 1) * columns)
        return cls(start, keys % max(1, columns), values)

    def counts(self, rows: Tensor) -> Tensor:
        """Count the entries of some rows ``(A,)``."""
        return self.start[rows + 1] - self.start[rows]

    def pick(self, rows: Tensor) -> Entries:
        """List the entries of some rows ``(A,)``, whose numbers become 0 to A - 1."""
        counts = self.counts(rows)  # (A,)
        owner = torch.arange(len(rows)).repeat_interleave(counts)  # (E,)
        place = torch.arange(len(owner)) + (self.start[rows] - counts.cumsum(0) + counts)[owner]  # (E,)
        return Entries(owner, self.columns[place], self.values[place])

    def all(self) -> Entries:
        """List all entries."""
        return self.pick(torch.arange(len(self.start) - 1))

    def sums(self) -> Tensor:
        """Add up each row: ``(R,)``."""
        return self.values.new_zeros(len(self.start) - 1).index_add_(0, self.all().rows, self.values)


def joined(parts: list[Entries]) -> Entries:
    """Concatenate entries."""
    return Entries(*(torch.cat(part) for part in zip(*parts, strict=True)))
