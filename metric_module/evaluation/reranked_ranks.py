"""Ranks after k-reciprocal re-ranking.

Shapes: Q = queries, M = gallery items, A = queries in a block, D = embedding size.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from metric_module.evaluation.exact.any_distance import CustomRanks
from metric_module.evaluation.k_reciprocal import ReciprocalGallery


class RerankedRanks(CustomRanks):
    """Counts of other classes' items within the re-ranked distance of each positive.

    Args:
        encoded: The gallery.
        query: Queries ``(Q, D)``.
        item: Position of each query in the gallery or -1, int64 ``(Q,)``.
        order: Row of the gallery at each sorted column ``(M,)``.
    """

    def __init__(self, encoded: ReciprocalGallery, query: Tensor, item: Tensor, order: Tensor) -> None:
        self._encoded, self._query, self._item, self._order = encoded, query, item, order
        self.threaded = True
        self.cells_per_query = 2 * len(order)

    @override
    def _matrix(self, rows: Tensor) -> Tensor:
        return self._encoded.final(self._query[rows], self._item[rows])[:, self._order]
