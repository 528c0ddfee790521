"""The nearest items found so far.

Shapes: Q = queries, K = neighbours, R = queries with candidates, N = candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    """Distances of the nearest items, float64 ``(Q, K)``, nearest first, and their positions, int64 ``(Q, K)``."""

    distances: Tensor
    positions: Tensor

    @classmethod
    def none(cls, rows: int, count: int, device: torch.device) -> Nearest:
        """Return infinite distances and positions -1."""
        distances = torch.full((rows, count), torch.inf, dtype=torch.float64, device=device)  # (Q, K)
        return cls(distances, torch.full_like(distances, -1, dtype=torch.int64))

    def insert(self, owner: Tensor, distances: Tensor, positions: Tensor) -> None:
        """Replace farther items by candidates, in place.

        Args:
            owner: Row of each candidate, ascending, int64 ``(N,)``.
            distances: Its distance, float64 ``(N,)``.
            positions: Its position, int64 ``(N,)``.
        """
        if not len(owner):
            return
        rows, counts = torch.unique_consecutive(owner, return_counts=True)  # (R,), (R,)
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)  # (N,)
        slot = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[row]  # (N,)
        added = Nearest.none(len(rows), int(counts.max()), rows.device)
        added.distances[row, slot], added.positions[row, slot] = distances, positions
        kept = join([Nearest(self.distances[rows], self.positions[rows]), added], self.distances.shape[1])
        self.distances[rows], self.positions[rows] = kept


def join(found: Sequence[Nearest], count: int) -> Nearest:
    """Return the ``count`` nearest of several results for the same queries, ordered by distance and then position."""
    positions, order = torch.cat([one.positions for one in found], dim=1).sort(dim=1)
    distances, again = torch.cat([one.distances for one in found], dim=1).gather(1, order).sort(dim=1, stable=True)
    positions = positions.gather(1, again)
    return Nearest(distances[:, :count].contiguous(), positions[:, :count].contiguous())
