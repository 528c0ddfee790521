"""The last positives of a query as its inputs.

Shapes: B = queries, L = length of a history.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.relations import Links


class History:
    """Reads the last positives of a query, as inputs of a :class:`metric_module.encoders.HistoryEncoder`.

    Args:
        positives: Positives of each query, in order of time.
        length: Length L of a history.

    Example:
        >>> history = History(Links(torch.tensor([0, 3, 3]), torch.tensor([7, 5, 9])), length=2)
        >>> history(torch.tensor([0, 1])).tolist()
        [[9, 5], [-1, -1]]
    """

    def __init__(self, positives: Links, length: int) -> None:
        self.positives, self.length = positives, length

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the last positives of queries ``(B,)``, see :meth:`before`."""
        return self.before(rows, self.positives.sizes[rows])

    def before(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Return the last of the first positives of each query.

        Args:
            rows: Queries, int64 ``(B,)``.
            ends: Number of positives to choose from, int64 ``(B,)``.

        Returns:
            Positives, the last one first, and -1 after the first one, int64 ``(B, L)``.
        """
        place = ends[:, None] - 1 - torch.arange(self.length)  # (B, L)
        found = self.positives.columns[(self.positives.starts[rows, None] + place).clamp(min=0)]  # (B, L)
        return found.masked_fill(place < 0, -1)
