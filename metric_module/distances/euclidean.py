"""Euclidean distances that stay accurate for near duplicates, and whose gradient is finite for exact ones.

Shapes: A = queries, M = references, D = embedding size, C = close pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.distances.base import Distance, Draft, EuclideanForm
from metric_module.functional import at_least_float32

# Pairs whose squared distance is below this share of the sum of their squared norms lose too many digits to
# cancellation in |q|^2 + |r|^2 - 2 q.r, and are computed from their difference instead.
_CLOSE = {torch.float32: 1e-2, torch.float64: 1e-5}
_PAIRS_AT_ONCE = 1 << 16


class _FromDifference(Distance):
    """The Euclidean distance or its square.

    Attributes:
        squared: Which of them.
    """

    symmetric = True
    squared: bool

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return draft_euclidean(query, reference, squared=self.squared).distances()

    @override
    def draft(self, query: Tensor, reference: Tensor) -> Draft:
        """Compute the distances up to the search for close pairs."""
        return draft_euclidean(query, reference, squared=self.squared)

    @override
    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the distances of rows ``(..., D)`` to rows ``(..., D)``: ``(...)``."""
        difference = query - reference  # (..., D)
        if self.squared:
            return difference.square().sum(dim=-1)
        distances: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return distances

    @override
    def paired_gradient(
        self, query: Tensor, reference: Tensor, slope: Tensor, learnable: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradient in closed form."""
        return _paired_gradient(query, reference, slope, squared=self.squared)

    @override
    def euclidean_form(self) -> EuclideanForm:
        """Return the form: the Euclidean distance itself, or its square."""
        return EuclideanForm(squared=self.squared)


class SquaredEuclidean(_FromDifference):
    """Squared Euclidean distance, ``|q - r|^2``.

    It is no metric (no triangle inequality) but orders pairs as :class:`Euclidean` does.

    Example:
        >>> SquaredEuclidean()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [[25.0]]
    """

    squared = True


class Euclidean(_FromDifference):
    """Euclidean distance, ``|q - r|``; its gradient at ``q = r`` is zero.

    Example:
        >>> Euclidean()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [[5.0]]
    """

    squared = False


def _paired_gradient(query: Tensor, reference: Tensor, slope: Tensor, *, squared: bool) -> tuple[Tensor, Tensor]:
    """Gradient by ``(A, 1, D)`` and ``(A, S, D)`` for derivatives by their distances ``(A, S)``; zero where equal."""
    push = reference - query  # (A, S, D)
    if squared:
        weight = 2 * slope  # (A, S)
    else:
        smallest = math.sqrt(torch.finfo(push.dtype).tiny)  # the square of a smaller difference is zero
        weight = slope / torch.linalg.vector_norm(push, dim=-1).clamp_(min=smallest)  # (A, S)
    push.mul_(weight[..., None])
    return push.sum(dim=1, keepdim=True).neg_(), push


def draft_euclidean(query: Tensor, reference: Tensor, *, squared: bool) -> Draft:
    """Compute Euclidean or squared Euclidean distances.

    One matrix product on rows centred at the reference mean; values and gradients of close pairs use the direct form,
    if the host is told that there are any.

    Args:
        query: Rows ``(A, D)``.
        reference: Rows ``(M, D)``; the same tensor as ``query`` where a set is compared with itself.
        squared: Whether to return the squares.

    Returns:
        Distances ``(A, M)``, in float32 or float64.
    """
    own = query is reference
    query = at_least_float32(query)
    reference = query if own else at_least_float32(reference)

    def finish(close: bool) -> Tensor:
        """Compute the close pairs, if there are any, and the distances."""
        if not torch.is_grad_enabled():
            return _distances(query, reference, product, close, squared)[0]
        result: Tensor = _EuclideanFunction.apply(query, reference, product, close, squared)
        return result

    with torch.no_grad():
        product = _product(query, reference, own)
    return Draft(product.unsure, finish)


class _Product(NamedTuple):
    """Squared distances from one matrix product.

    Attributes:
        query: Queries minus the reference mean, ``(A, D)``.
        reference: References minus their mean, ``(M, D)``.
        query_norm: Squared lengths of the former, ``(A,)``.
        reference_norm: Squared lengths of the latter, ``(M,)``.
        squared: Squared distances ``(A, M)``.
        first: Row of the references at which the queries start; None: they are other rows. This diagonal is zero.
        unsure: Whether there may be close pairs, bool ``()``; None without any distance.
        own: Whether queries and references are one tensor.
    """

    query: Tensor
    reference: Tensor
    query_norm: Tensor
    reference_norm: Tensor
    squared: Tensor
    first: int | None
    unsure: Tensor | None
    own: bool


def _product(query: Tensor, reference: Tensor, own: bool) -> _Product:
    center = reference.mean(dim=0)  # (D,)
    centered_reference = reference - center  # (M, D)
    reference_norm = centered_reference.square().sum(dim=1)  # (M,)
    first = 0 if own else _first_own_row(query, reference)
    if own:
        centered_query, query_norm = centered_reference, reference_norm  # (A, D), (A,)
    elif first is None:
        centered_query = query - center  # (A, D)
        query_norm = centered_query.square().sum(dim=1)  # (A,)
    else:
        rows = slice(first, first + len(query))
        centered_query, query_norm = centered_reference[rows], reference_norm[rows]  # (A, D), (A,)
    squared = torch.addmm(reference_norm, centered_query, centered_reference.T, alpha=-2)  # (A, M)
    squared.add_(query_norm[:, None])
    if not squared.numel():
        return _Product(centered_query, centered_reference, query_norm, reference_norm, squared, first, None, own)
    if first is not None:
        squared.diagonal(first).fill_(math.inf)
    share = _CLOSE[squared.dtype]
    bound = (2 * share) * reference_norm.amax() if own else share * (reference_norm.amax() + query_norm.amax())  # ()
    unsure = squared.amin() <= bound  # ()
    return _Product(centered_query, centered_reference, query_norm, reference_norm, squared, first, unsure, own)


def _distances(
    query: Tensor, reference: Tensor, product: _Product, close: bool, squared: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Finish the distances in place; return also rows and columns of the close pairs, ``(C,)``, if there are any."""
    result = product.squared
    pairs = _close_pairs(product) if close else ()
    if product.first is not None:
        result.diagonal(product.first).zero_()
    for row, column in _portions(pairs):
        direct = (query.index_select(0, row) - reference.index_select(0, column)).square().sum(dim=1)  # (C,)
        result[row, column] = direct
    if not squared:
        result.sqrt_()
    return result, pairs


class _EuclideanFunction(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, query: Tensor, reference: Tensor, product: _Product, close: bool, squared: bool) -> Tensor:
        result, pairs = _distances(query, reference, product, close, squared)
        ctx.squared, ctx.first, ctx.own = squared, product.first, product.own
        ctx.save_for_backward(query, reference, product.query, product.reference, result, *pairs)
        return result

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, reference, centered_query, centered_reference, distance, *pairs = ctx.saved_tensors
        # Zero distances are among the close pairs or on the diagonal, so that these weights are overwritten.
        weight = 2 * grad_outputs[0] if ctx.squared else grad_outputs[0] / distance  # (A, M)
        close = weight  # of the close pairs, (C,)
        if pairs:
            rows, columns = pairs  # (C,), (C,)
            close = torch.where((distance[rows, columns] > 0) | ctx.squared, weight[rows, columns], 0.0)
            weight[rows, columns] = 0
        if ctx.first is not None:
            weight.diagonal(ctx.first).zero_()
        if ctx.own:  # both gradients are those of one tensor: one product gives their sum
            weight = weight + weight.T
        grad_query = weight.sum(dim=1)[:, None] * centered_query  # (A, D)
        grad_query.addmm_(weight, centered_reference, alpha=-1)
        grad_reference = grad_query
        if not ctx.own:
            grad_reference = weight.sum(dim=0)[:, None] * centered_reference  # (M, D)
            grad_reference.addmm_(weight.T, centered_query, alpha=-1)
        for row, column, slope in _portions((*pairs, close) if pairs else ()):
            difference = query.index_select(0, row) - reference.index_select(0, column)  # (C, D)
            pull = slope[:, None] * difference  # (C, D)
            grad_query.index_add_(0, row, pull)
            grad_reference.index_add_(0, column, -pull)
        return grad_query, None if ctx.own else grad_reference, None, None, None


def _portions(pairs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Cut what belongs to close pairs, ``(C,)`` each, into portions of bounded memory."""
    for start in range(0, len(pairs[0]) if pairs else 0, _PAIRS_AT_ONCE):
        yield tuple(part[start : start + _PAIRS_AT_ONCE] for part in pairs)


def _first_own_row(query: Tensor, reference: Tensor) -> int | None:
    """Find the row of the references at which the queries start, if they share memory; None if they do not.

    Then one diagonal is zero by definition, and need not be found by the search for close pairs in each row.
    """
    same = query.untyped_storage().data_ptr() == reference.untyped_storage().data_ptr()
    if not same or query.stride() != reference.stride() or query.dtype != reference.dtype or not query.numel():
        return None
    first, rest = divmod(int(query.storage_offset() - reference.storage_offset()), reference.stride(0) or 1)
    return first if rest == 0 and 0 <= first <= len(reference) - len(query) else None


def _close_pairs(product: _Product) -> tuple[Tensor, Tensor]:
    """Find the pairs too close for the product form, whose own diagonal is infinite.

    One cheap pass finds the rows that have any; an exact filter then applies the bound of each pair.

    Returns:
        Rows and columns of the pairs, int64 ``(C,)`` each.
    """
    squared = product.squared
    share = _CLOSE[squared.dtype]
    bound = share * (product.query_norm + product.reference_norm.amax())  # (A,)
    found = (squared.amin(dim=1) <= bound).nonzero().flatten()  # rows that have close pairs
    part = squared if len(found) == len(squared) else squared.index_select(0, found)
    # Comparing into floats is vectorised, into bools it is not.
    candidate = torch.le(part, bound.index_select(0, found)[:, None], out=torch.empty_like(part)).bool()
    rows, columns = candidate.nonzero(as_tuple=True)
    rows = found.index_select(0, rows)
    scale = product.query_norm.index_select(0, rows) + product.reference_norm.index_select(0, columns)
    keep = squared[rows, columns] <= share * scale
    return rows[keep], columns[keep]
