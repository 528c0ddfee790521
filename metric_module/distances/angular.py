"""Distances from inner products."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from metric_module.distances.base import Distance, Draft, EuclideanForm
from metric_module.distances.euclidean import draft_euclidean
from metric_module.functional import at_least_float32, unit


class Cosine(Distance):
    """Cosine distance, ``1 - cos(q, r)``, in [0, 2].

    Computed as half the squared distance of the unit vectors, which keeps the digits of near duplicates. A zero vector
    is at distance 1/2 from every other. It is no metric (no triangle inequality).

    Example:
        >>> import torch
        >>> Cosine()(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0], [-1.0, 0.0]])).tolist()
        [[1.0, 2.0]]
    """

    symmetric = True

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute cosine distances ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return Cosine.draft(self, query, reference).distances()  # a subclass may have dropped it

    @override
    def draft(self, query: Tensor, reference: Tensor) -> Draft:
        """Compute the distances up to the search for close pairs."""
        rows = unit(query)  # (A, D)
        draft = draft_euclidean(rows, rows if reference is query else unit(reference), squared=True)
        return Draft(draft.unsure, lambda close: draft.finish(close) / 2)

    @override
    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the distances of rows ``(..., D)`` to rows ``(..., D)``: ``(...)``."""
        return (unit(query) - unit(reference)).square().sum(dim=-1) / 2

    @override
    def euclidean_form(self) -> EuclideanForm:
        """Return the form: half the squared distance of the unit vectors."""
        return EuclideanForm(squared=True, factor=0.5, rows=unit)


class DotProduct(Distance):
    """Negated inner product, ``-<q, r>``, for embeddings that are not normalised.

    It is no metric: ``d(q, q)`` is not zero, values may be negative, and there is no triangle inequality.

    Example:
        >>> import torch
        >>> DotProduct()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).tolist()
        [[-11.0]]
    """

    symmetric = True

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute negated inner products ``(A, M)`` between rows ``(A, D)`` and ``(M, D)``."""
        return -(at_least_float32(query) @ at_least_float32(reference).T)

    @override
    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the negated inner products of rows ``(..., D)`` and rows ``(..., D)``: ``(...)``."""
        return -(at_least_float32(query) * at_least_float32(reference)).sum(dim=-1)
