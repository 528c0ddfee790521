"""The ratio of noise to signal."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from metric_module.distances.base import Distance
from metric_module.distances.euclidean import euclidean
from metric_module.functional import at_least_float32

SMALLEST_SIGNAL = 1e-6
"""Lower bound on the variance of a query's coordinates."""


class SNR(Distance):
    """SNR distance, noise over signal, ``Var(q - r) / Var(q)``, both over the D coordinates (Yuan et al. 2019).

    The query, which is the anchor, is the signal, and its difference from the reference is the noise; the distance is
    the inverse of the signal-to-noise ratio. It is no metric: it is not symmetric, has no triangle inequality, and is
    zero for any two rows that differ by a constant. For one anchor it orders references as the squared Euclidean
    distance of the rows minus their means does; it differs only in comparisons across anchors.

    ``Var(q)`` is taken as at least 1e-6: then a constant query, which holds no signal, has finite distances, and a
    finite gradient through the noise only. The variance of a unit vector is about ``1 / D``, far more than that.
    The paper adds a regulariser that pulls the mean of each row to zero; the distance does not include it.

    Example:
        >>> import torch
        >>> SNR()(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0], [3.0, 3.0], [4.0, 2.0]])).tolist()
        [[0.0, 1.0, 4.0]]
    """

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute noise-to-signal ratios ``(A, M)`` of rows ``(A, D)`` and ``(M, D)``."""
        signal, other = (at_least_float32(rows) for rows in (query, reference))
        signal, other = signal - signal.mean(dim=1, keepdim=True), other - other.mean(dim=1, keepdim=True)
        variance = signal.square().mean(dim=1, keepdim=True)  # (A, 1)
        noise = euclidean(signal, other, squared=True) / signal.shape[1]  # (A, M)
        return noise / variance.clamp(min=SMALLEST_SIGNAL)
