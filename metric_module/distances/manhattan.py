"""Manhattan distance."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances.base import Distance
from metric_module.functional import at_least_float32


class Manhattan(Distance):
    """Manhattan distance, ``sum_k |q_k - r_k|``; its gradient is zero in coordinates that are equal.

    Example:
        >>> Manhattan()(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]])).tolist()
        [[7.0]]
    """

    symmetric = True

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute Manhattan distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return torch.cdist(at_least_float32(query), at_least_float32(reference), p=1)

    @override
    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the distances of rows ``(..., D)`` to rows ``(..., D)``: ``(...)``."""
        return (at_least_float32(query) - at_least_float32(reference)).abs().sum(dim=-1)
