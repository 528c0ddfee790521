"""Ranks under any distance, from its own float64 matrices.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = columns in a tile, K = most positives, D = size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm
from metric_module.distances.base import Measure
from metric_module.errors import UserError
from metric_module.evaluation.exact.counting import count_at_least
from metric_module.evaluation.exact.matches import Block, Listed, nearest_first, own_class
from metric_module.evaluation.exact.rounding import all_distances

_TILE = 2048  # columns of the gallery handed to the distance at once
# A float64 product may differ in its last bits from block to block; distances that are equal in float32 tie.
_RELATIVE = 2.0**-24
_OF_LARGEST = 2.0**-40


class CustomRanks:
    """Counts of other classes' items within the distance of each positive, for any distance.

    Two distances of a query count as equal, and so as a miss, when they differ by less than ``2^-24`` of themselves
    plus ``2^-40`` of the query's largest. That is far more than the rounding errors of float64, so that figures do not
    depend on blocks or on the order of rows, and exact duplicates tie whatever the formula.

    Attributes:
        threaded: Whether several threads may count blocks at once.
        cells_per_query: Numbers that a query of a block needs in memory.

    Args:
        distance: The distance, in float64, from :func:`form_or_copy`.
        query: Queries ``(Q, D)``.
        gallery: Gallery ``(M, D)``.
        order: Row of the gallery at each sorted column ``(M,)``.
    """

    def __init__(self, distance: Distance, query: Tensor, gallery: Tensor, order: Tensor) -> None:
        self._measure = checked(distance)
        self._query, self._gallery, self._order = query, gallery, order
        self.threaded = False
        self.cells_per_query = max(1, len(gallery))

    def count(self, block: Block, deepest: int | None = None) -> tuple[Tensor, Tensor]:
        """Count the items of other classes that are as close as each positive.

        Args:
            block: The queries.
            deepest: Not used: the whole matrix is computed in any case.

        Returns:
            For the positives of each query, nearest first: their number ``(A,)``, and how many items of other classes
            are at their distance or closer ``(A, K)``. Both int64.

        Raises:
            UserError: If the distance gives another shape, or is not finite.
        """
        matrix = self._matrix(block.rows)  # (A, M)
        limit = _reach(matrix, block.columns, block.positive)  # (A, K)
        mask = own_class(block.start, block.stop, 0, matrix.shape[1])  # (A, M)
        if mask is not None:
            matrix.masked_fill_(mask, torch.inf)
        sizes = block.positive.sum(dim=1)  # (A,)
        real = torch.arange(limit.shape[1], device=limit.device) < sizes[:, None]  # (A, K)
        return sizes, count_at_least(matrix.neg_(), -limit.masked_fill(~real, -torch.inf))

    def count_listed(self, block: Listed) -> Tensor:
        """Count the items that are as close as each positive and in no list of the query.

        Args:
            block: The queries, and their positive and ignored items. The gallery is not sorted.

        Returns:
            For the positives of each query, nearest first, how many items of no list are at their distance or closer,
            int64 ``(A, K)``; any number where there are fewer than K.

        Raises:
            UserError: If the distance gives another shape, or is not finite.
        """
        matrix = self._matrix(block.rows)  # (A, M)
        limit = _reach(matrix, *block.positive)  # (A, K)
        for columns, valid in (block.positive, block.ignored):
            matrix[valid.nonzero()[:, 0], columns[valid]] = torch.inf
        return count_at_least(matrix.neg_(), -limit.masked_fill(limit.isinf(), -torch.inf))

    def _matrix(self, rows: Tensor) -> Tensor:
        """Compute the distances ``(A, M)`` of queries ``(A,)`` to the sorted gallery."""
        query = self._query.index_select(0, rows).double()  # (A, D)
        matrix = torch.empty(len(query), len(self._order), dtype=torch.float64, device=query.device)  # (A, M)
        for first in range(0, len(self._order), _TILE):
            order = self._order[first : first + _TILE]
            matrix[:, first : first + _TILE] = self._measure(query, self._gallery.index_select(0, order).double())
        return matrix


def _reach(matrix: Tensor, columns: Tensor, positive: Tensor) -> Tensor:
    """Compute the distance ``(A, K)`` up to which an item is as close as each positive, infinite for padding."""
    limit = nearest_first(matrix.gather(1, columns), positive)  # (A, K)
    largest = matrix.abs().amax(dim=1, keepdim=True)  # (A, 1)
    return limit + _RELATIVE * limit.abs() + _OF_LARGEST * largest


def form_or_copy(distance: Distance | None, device: torch.device) -> EuclideanForm | Distance:
    """Return how a distance follows from the Euclidean one, or, if it does not, a copy of it that works in float64.

    Args:
        distance: The distance, which is not changed; None is Euclidean.
        device: Device of the rows to measure.
    """
    if distance is None:
        return EuclideanForm()
    # Moved first: not every device has float64.
    copied = copy.deepcopy(distance).to(device).double().eval().requires_grad_(False)
    return copied.euclidean_form() or copied


def checked(distance: Distance) -> Measure:
    """Return a distance as a function that checks the shape and the values of each matrix.

    Args:
        distance: The distance.

    Returns:
        A function of query rows ``(A, D)`` and gallery rows ``(T, D)``. It raises a ``UserError`` if the distance gives
        another shape than ``(A, T)``, or is not finite.
    """
    name = type(distance).__name__

    def measure(query: Tensor, gallery: Tensor) -> Tensor:
        """Compute distances ``(A, T)``."""
        got = distance(query, gallery)
        if not isinstance(got, Tensor) or got.shape != (len(query), len(gallery)):
            shape = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise UserError(f"{name}: expected distances of shape [{len(query)}, {len(gallery)}], got {shape}")
        bad = int((~got.isfinite()).sum())
        if bad:
            raise UserError(f"{name}: expected finite distances, got NaN or infinity in {bad} of {got.numel()} pairs")
        return got

    return measure


def exact_distance(distance: Distance | None, device: torch.device) -> Measure:
    """Return a distance whose value for a pair does not depend on the other rows, so that equal pairs tie.

    Args:
        distance: The distance; None is Euclidean. One without a Euclidean form is rounded to float32.
        device: Device of the rows to measure.

    Returns:
        A function of float64 rows ``(A, D)`` and ``(T, D)`` that returns ``(A, T)``, float64.
    """
    form = form_or_copy(distance, device)
    if isinstance(form, EuclideanForm):
        return lambda query, gallery: form.of(all_distances(form.map(query), form.map(gallery)))
    measure = checked(form)
    return lambda query, gallery: measure(query, gallery).float().double()
