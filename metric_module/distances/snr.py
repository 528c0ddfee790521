"""The ratio of noise to signal."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from metric_module.distances.base import Distance, Draft
from metric_module.distances.euclidean import draft_euclidean
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
        return SNR.draft(self, query, reference).distances()  # a subclass may have dropped it

    @override
    def draft(self, query: Tensor, reference: Tensor) -> Draft:
        """Compute the distances up to the search for close pairs."""
        signal = _centred(query)  # (A, D)
        noise = draft_euclidean(signal, signal if reference is query else _centred(reference), squared=True)
        variance = _variance(signal)[:, None]  # (A, 1)
        return Draft(noise.unsure, lambda close: noise.finish(close) / signal.shape[1] / variance)

    @override
    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the ratios of rows ``(..., D)`` and rows ``(..., D)``: ``(...)``."""
        signal = _centred(query)  # (..., D)
        return (signal - _centred(reference)).square().mean(dim=-1) / _variance(signal)


def _centred(rows: Tensor) -> Tensor:
    """Subtract its mean from each row ``(..., D)``."""
    rows = at_least_float32(rows)
    return rows - rows.mean(dim=-1, keepdim=True)


def _variance(signal: Tensor) -> Tensor:
    """Variance of each centred row ``(..., D)``, at least :data:`SMALLEST_SIGNAL`: ``(...)``."""
    return signal.square().mean(dim=-1).clamp(min=SMALLEST_SIGNAL)
