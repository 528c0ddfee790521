"""Euclidean distances that stay accurate for near duplicates, and whose gradient is finite for exact ones.

Shapes: A = queries, M = references, D = embedding size, C = close pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.distances.base import Distance
from metric_module.functional import at_least_float32

# Pairs whose squared distance is below this share of the sum of their squared norms lose too many digits to
# cancellation in |q|^2 + |r|^2 - 2 q.r, and are computed from their difference instead.
_CLOSE = {torch.float32: 1e-2, torch.float64: 1e-5}
_PAIRS_AT_ONCE = 1 << 16


class SquaredEuclidean(Distance):
    """Squared Euclidean distance, ``|q - r|^2``.

    It is no metric (no triangle inequality) but orders pairs as :class:`Euclidean` does.

    Example:
        >>> SquaredEuclidean()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [[25.0]]
    """

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Squared distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return euclidean(query, reference, squared=True)


class Euclidean(Distance):
    """Euclidean distance, ``|q - r|``; its gradient at ``q = r`` is zero.

    Example:
        >>> Euclidean()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [[5.0]]
    """

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return euclidean(query, reference, squared=False)


def euclidean(query: Tensor, reference: Tensor, *, squared: bool) -> Tensor:
    """Euclidean or squared Euclidean distances between rows ``(A, D)`` and ``(M, D)``: ``(A, M)``.

    One matrix product on rows centred at the reference mean; close pairs, values and gradients, in the direct form.
    """
    result: Tensor = _EuclideanFunction.apply(at_least_float32(query), at_least_float32(reference), squared)
    return result


class _EuclideanFunction(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, query: Tensor, reference: Tensor, squared: bool) -> Tensor:
        center = reference.mean(dim=0)  # (D,)
        centered_query, centered_reference = query - center, reference - center  # (A, D), (M, D)
        query_norm = centered_query.square().sum(dim=1)  # (A,)
        reference_norm = centered_reference.square().sum(dim=1)  # (M,)
        result = torch.addmm(reference_norm[None, :], centered_query, centered_reference.T, alpha=-2)  # (A, M)
        result.add_(query_norm[:, None]).clamp_(min=0)  # (A, M)
        rows, columns = _close_pairs(result, query_norm, reference_norm)  # (C,), (C,)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            row, column = rows[start : start + _PAIRS_AT_ONCE], columns[start : start + _PAIRS_AT_ONCE]
            direct = (query.index_select(0, row) - reference.index_select(0, column)).square().sum(dim=1)  # (C,)
            result[row, column] = direct
        if not squared:
            result.sqrt_()
        ctx.squared = squared
        ctx.save_for_backward(query, reference, center, result, rows, columns)
        return result

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        query, reference, center, distance, rows, columns = ctx.saved_tensors
        slope = grad_outputs[0]  # (A, M)
        weight = 2 * slope if ctx.squared else torch.where(distance > 0, slope / distance, 0.0)  # (A, M)
        close = weight[rows, columns]  # (C,)
        weight[rows, columns] = 0
        centered_query, centered_reference = query - center, reference - center  # (A, D), (M, D)
        grad_query = weight.sum(dim=1)[:, None] * centered_query - weight @ centered_reference  # (A, D)
        grad_reference = weight.sum(dim=0)[:, None] * centered_reference - weight.T @ centered_query  # (M, D)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            row, column = rows[start : start + _PAIRS_AT_ONCE], columns[start : start + _PAIRS_AT_ONCE]
            difference = query.index_select(0, row) - reference.index_select(0, column)  # (C, D)
            pull = close[start : start + _PAIRS_AT_ONCE, None] * difference  # (C, D)
            grad_query.index_add_(0, row, pull)
            grad_reference.index_add_(0, column, -pull)
        return grad_query, grad_reference, None


def _close_pairs(squared: Tensor, query_norm: Tensor, reference_norm: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs too close for the product form, by one cheap pass and an exact filter."""
    share = _CLOSE[squared.dtype]
    candidate = squared <= share * (query_norm[:, None] + reference_norm.max())  # (A, M)
    rows, columns = candidate.nonzero(as_tuple=True)
    scale = query_norm.index_select(0, rows) + reference_norm.index_select(0, columns)
    keep = squared[rows, columns] <= share * scale
    return rows[keep], columns[keep]
