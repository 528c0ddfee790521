"""Ranks under any distance, from the matrix that the distance itself gives in float64.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = columns in a tile, K = most positives, D = size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.counting import count_at_least
from metric_module.evaluation.matches import Block, nearest_first, own_class

_TILE = 2048  # columns of the gallery handed to the distance at once
# A float64 product may differ in its last bits from block to block; what a float32 cannot tell apart is a tie.
_RELATIVE = 2.0**-24
_OF_LARGEST = 2.0**-40


class CustomRanks:
    """Counts other classes' items within the distance of each positive, for any distance.

    A copy of the distance works in float64. Two distances of a query count as equal, and so as a miss, when they differ
    by less than ``2^-24`` of themselves plus ``2^-40`` of the query's largest. That is far more than float64 loses, so
    that neither blocks nor the order of rows show, and exact duplicates tie whatever the formula.

    Args:
        distance: The distance.
        query: Queries ``(Q, D)``.
        gallery: Gallery ``(M, D)``.
        order: Row of the gallery at each sorted column ``(M,)``.
    """

    def __init__(self, distance: Distance, query: Tensor, gallery: Tensor, order: Tensor) -> None:
        self._distance = copy.deepcopy(distance).to(query.device, torch.float64).eval()
        self._query, self._gallery, self._order = query, gallery, order

    def count(self, block: Block) -> tuple[Tensor, Tensor]:
        """Count what is as close as each positive.

        Args:
            block: The queries.

        Returns:
            For the positives of each query, nearest first: their number ``(A,)``, and how many items of other classes
            are at their distance or closer ``(A, K)``. Both int64.

        Raises:
            UserError: If the distance gives another shape, or is not finite.
        """
        matrix = self._matrix(self._query.index_select(0, block.rows).double())  # (A, M)
        limit = nearest_first(matrix.gather(1, block.columns), block.positive)  # (A, K)
        largest = matrix.abs().amax(dim=1, keepdim=True)  # (A, 1)
        limit = limit + _RELATIVE * limit.abs() + _OF_LARGEST * largest  # (A, K)
        mask = own_class(block.start, block.stop, 0, matrix.shape[1])  # (A, M)
        if mask is not None:
            matrix.masked_fill_(mask, torch.inf)
        sizes = block.positive.sum(dim=1)  # (A,)
        real = torch.arange(limit.shape[1], device=limit.device) < sizes[:, None]  # (A, K)
        return sizes, count_at_least(matrix.neg_(), -limit.masked_fill(~real, -torch.inf))

    def _matrix(self, query: Tensor) -> Tensor:
        """Distances ``(A, M)`` to the sorted gallery."""
        matrix = torch.empty(len(query), len(self._order), dtype=torch.float64, device=query.device)  # (A, M)
        name = type(self._distance).__name__
        for first in range(0, len(self._order), _TILE):
            order = self._order[first : first + _TILE]
            got = self._distance(query, self._gallery.index_select(0, order).double())  # (A, T)
            if not isinstance(got, Tensor) or got.shape != (len(query), len(order)):
                shape = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
                raise UserError(f"{name}: expected distances of shape [{len(query)}, {len(order)}], got {shape}")
            bad = int((~got.isfinite()).sum())
            if bad:
                raise UserError(
                    f"{name}: expected finite distances, got NaN or infinity in {bad} of {got.numel()} pairs"
                )
            matrix[:, first : first + _TILE] = got
        return matrix
