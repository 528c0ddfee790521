"""Euclidean distances that stay accurate for near duplicates, and whose gradient is finite for exact ones.

Shapes: A = queries, M = references, D = embedding size, C = close pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.distances.base import Distance, EuclideanForm
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
        """Compute squared distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return euclidean(query, reference, squared=True)

    @override
    def euclidean_form(self) -> EuclideanForm:
        """Return the form: the square."""
        return EuclideanForm(squared=True)


class Euclidean(Distance):
    """Euclidean distance, ``|q - r|``; its gradient at ``q = r`` is zero.

    Example:
        >>> Euclidean()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [[5.0]]
    """

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return euclidean(query, reference, squared=False)

    @override
    def euclidean_form(self) -> EuclideanForm:
        """Return the form: the Euclidean distance itself."""
        return EuclideanForm()


def euclidean(query: Tensor, reference: Tensor, *, squared: bool) -> Tensor:
    """Compute Euclidean or squared Euclidean distances.

    One matrix product on rows centred at the reference mean; values and gradients of close pairs use the direct form.

    Args:
        query: Rows ``(A, D)``.
        reference: Rows ``(M, D)``.
        squared: Whether to return the squares.

    Returns:
        Distances ``(A, M)``, in float32 or float64.
    """
    result: Tensor = _EuclideanFunction.apply(at_least_float32(query), at_least_float32(reference), squared)
    return result


class _EuclideanFunction(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, query: Tensor, reference: Tensor, squared: bool) -> Tensor:
        center = reference.mean(dim=0)  # (D,)
        centered_reference = reference - center  # (M, D)
        reference_norm = centered_reference.square().sum(dim=1)  # (M,)
        first = _first_own_row(query, reference)
        if first is None:
            centered_query = query - center  # (A, D)
            query_norm = centered_query.square().sum(dim=1)  # (A,)
        else:
            own = slice(first, first + len(query))
            centered_query, query_norm = centered_reference[own], reference_norm[own]  # (A, D), (A,)
        result = torch.addmm(reference_norm[None, :], centered_query, centered_reference.T, alpha=-2)  # (A, M)
        result.add_(query_norm[:, None])
        rows, columns = _close_pairs(result, query_norm, reference_norm, first)  # (C,), (C,)
        for portion in _portions(len(rows)):
            row, column = rows[portion], columns[portion]
            direct = (query.index_select(0, row) - reference.index_select(0, column)).square().sum(dim=1)  # (C,)
            result[row, column] = direct
        if not squared:
            result.sqrt_()
        ctx.squared, ctx.first = squared, first
        ctx.save_for_backward(query, reference, centered_query, centered_reference, result, rows, columns)
        return result

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        query, reference, centered_query, centered_reference, distance, rows, columns = ctx.saved_tensors
        # Zero distances are among the close pairs or on the diagonal, so that these weights are overwritten.
        weight = 2 * grad_outputs[0] if ctx.squared else grad_outputs[0] / distance  # (A, M)
        close = weight[rows, columns] if len(rows) else weight.new_zeros(0)  # (C,)
        if len(rows):
            close = torch.where((distance[rows, columns] > 0) | ctx.squared, close, 0.0)
            weight[rows, columns] = 0
        if ctx.first is not None:
            weight.diagonal(ctx.first).zero_()
        grad_query = weight.sum(dim=1)[:, None] * centered_query  # (A, D)
        grad_query.addmm_(weight, centered_reference, alpha=-1)
        grad_reference = weight.sum(dim=0)[:, None] * centered_reference  # (M, D)
        grad_reference.addmm_(weight.T, centered_query, alpha=-1)
        for portion in _portions(len(rows)):
            row, column = rows[portion], columns[portion]
            difference = query.index_select(0, row) - reference.index_select(0, column)  # (C, D)
            pull = close[portion, None] * difference  # (C, D)
            grad_query.index_add_(0, row, pull)
            grad_reference.index_add_(0, column, -pull)
        return grad_query, grad_reference, None


def _portions(count: int) -> Iterator[slice]:
    """Cut close pairs into portions of bounded memory."""
    for start in range(0, count, _PAIRS_AT_ONCE):
        yield slice(start, start + _PAIRS_AT_ONCE)


def _first_own_row(query: Tensor, reference: Tensor) -> int | None:
    """Find the row of the references at which the queries start, if they share memory; None if they do not.

    Then one diagonal is zero by definition, and need not be found by the search for close pairs in each row.
    """
    same = query.untyped_storage().data_ptr() == reference.untyped_storage().data_ptr()
    if not same or query.stride() != reference.stride() or query.dtype != reference.dtype or not query.numel():
        return None
    first, rest = divmod(int(query.storage_offset() - reference.storage_offset()), reference.stride(0) or 1)
    return first if rest == 0 and 0 <= first <= len(reference) - len(query) else None


def _close_pairs(
    squared: Tensor, query_norm: Tensor, reference_norm: Tensor, first: int | None
) -> tuple[Tensor, Tensor]:
    """Find the pairs too close for the product form, and set the diagonal that starts at ``first`` to zero.

    One cheap pass finds the rows that have any; an exact filter then applies the bound of each pair.

    Returns:
        Rows and columns of the pairs, int64 ``(C,)`` each.
    """
    if not squared.numel():
        none = torch.zeros(0, dtype=torch.int64, device=squared.device)
        return none, none
    share = _CLOSE[squared.dtype]
    bound = share * (query_norm + reference_norm.max())  # (A,)
    own = None if first is None else squared.diagonal(first)
    if own is not None:
        own.fill_(math.inf)
    found = (squared.amin(dim=1) <= bound).nonzero().flatten()  # rows that have close pairs
    if not len(found):
        if own is not None:
            own.zero_()
        return found, found
    part = squared if len(found) == len(squared) else squared.index_select(0, found)
    # Comparing into floats is vectorised, into bools it is not.
    candidate = torch.le(part, bound.index_select(0, found)[:, None], out=torch.empty_like(part)).bool()
    rows, columns = candidate.nonzero(as_tuple=True)
    rows = found.index_select(0, rows)
    if own is not None:
        own.zero_()
    scale = query_norm.index_select(0, rows) + reference_norm.index_select(0, columns)
    keep = squared[rows, columns] <= share * scale
    return rows[keep], columns[keep]
