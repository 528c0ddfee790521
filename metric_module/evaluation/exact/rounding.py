"""Numerics of exact ranks: distances that depend on one pair only, and bounds on the rounding error of products.

Shapes: Q = queries, M = gallery items, A = queries in a block, N = pairs, K = most positives, D = embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DIRECT = "donot_use_mm_for_euclid_dist"
_WIDTH = 128  # coordinates of a product that are added up at once
_NUMBERS_AT_ONCE = 1 << 18  # about the size of a cache
_FINE = torch.finfo(torch.float64).eps / 2


def all_distances(query: Tensor, gallery: Tensor) -> Tensor:
    """Compute Euclidean distances of all pairs from their differences, in float64, equal to :func:`pair_distances`.

    Args:
        query: Rows ``(A, D)``.
        gallery: Rows ``(M, D)``.

    Returns:
        Distances ``(A, M)``.
    """
    return torch.cdist(query.double(), gallery.double(), compute_mode=_DIRECT)


def pair_distances(query: Tensor, gallery: Tensor) -> Tensor:
    """Compute Euclidean distances of paired rows from their differences, in float64: ``|q - g|``.

    Args:
        query: Rows ``(N, D)``.
        gallery: Rows ``(N, D)``.

    Returns:
        Distances ``(N,)``; each depends on its own two rows only, to the last bit.

    Example:
        >>> pair_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
        [5.0]
    """
    return torch.cdist(query[:, None].double(), gallery[:, None].double(), compute_mode=_DIRECT).flatten()


def indexed_distances(query: Tensor, gallery: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute :func:`pair_distances` of listed pairs, a few at a time.

    Args:
        query: Rows ``(A, D)``.
        gallery: Rows ``(M, D)``.
        rows: Row of ``query`` of each pair, int64 ``(N,)``.
        columns: Row of ``gallery`` of each pair, int64 ``(N,)``.

    Returns:
        Distances ``(N,)``.
    """
    step = max(1, _NUMBERS_AT_ONCE // query.shape[1])
    found = [torch.empty(0, dtype=torch.float64, device=query.device)]
    for row, column in zip(torch.split(rows, step), torch.split(columns, step), strict=True):
        found.append(pair_distances(query.index_select(0, row), gallery.index_select(0, column)))
    return torch.cat(found)


def products(query: Tensor, gallery: Tensor, half: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute scores ``q.g + h``, a few coordinates at a time, which keeps the bound on the rounding error small.

    Args:
        query: Rows ``(A, D)``.
        gallery: Rows ``(T, D)``.
        half: The number h to add to each column ``(T,)``.
        out: Where to write the scores ``(A, T)``; None: new memory.

    Returns:
        Scores ``(A, T)``.
    """
    score = torch.addmm(half, query[:, :_WIDTH], gallery[:, :_WIDTH].T, out=out)  # (A, T)
    for first in range(_WIDTH, query.shape[1], _WIDTH):
        score.addmm_(query[:, first : first + _WIDTH], gallery[:, first : first + _WIDTH].T)
    return score


def rounding(query: Tensor, gallery: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Bound the difference of the score ``q.g - |g|^2 / 2`` of :func:`products` and that of the float64 distance.

    The bound holds for any order of summation, with fused multiplication or without: Higham, "Accuracy and Stability of
    Numerical Algorithms" (2002), section 3.1. It includes the rounding of the inputs to the type, the rounding of
    float64 itself, and underflow.

    Args:
        query: Norms of the queries ``(A, 1)``, float64.
        gallery: The largest norm of the gallery rows, ``()``.
        width: D.
        dtype: The type of the product.

    Returns:
        The bound ``(A, 1)``.
    """
    product = query * gallery + gallery.square() / 2  # (A, 1)
    unit = torch.finfo(dtype).eps / 2
    additions = min(width, _WIDTH) + width // _WIDTH + 8  # roundings of one term
    exact = 4 * (width + 8) * _FINE * (query + gallery).square()  # (A, 1)
    return 1.01 * (additions * unit * product + exact) + width * 2.0**-120


def outward(edge: Tensor, limit: Tensor, dtype: torch.dtype, towards: float) -> Tensor:
    """Round edges to a type without moving them inwards.

    Args:
        edge: The edges ``(A, K)``, float64.
        limit: Distances of the positives ``(A, K)``, infinite where there is none; the edge is infinite there.
        dtype: The type.
        towards: The infinity in the outward direction.

    Returns:
        The edges ``(A, K)``.
    """
    rounded = edge.to(dtype)  # (A, K)
    rounded = torch.nextafter(rounded, torch.full_like(rounded, towards))
    return rounded.masked_fill(limit.isinf(), torch.inf)


def rescale(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Scale numbers near the ends of their type's range to its middle, by a power of two, which changes no rank.

    Args:
        query: Rows ``(Q, D)``, float32 or float64.
        gallery: Rows ``(M, D)``; the same object stays the same object.

    Returns:
        Both in their common type.
    """
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    reach = 100 if dtype == torch.float32 else 1000
    largest = max(float(rows.abs().max()) if rows.numel() else 0.0 for rows in (query, gallery))
    exponent = int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent)
    factor = 1.0 if abs(exponent) < 40 else 2.0 ** -max(-reach, min(reach, exponent))
    scaled = query.to(dtype) if factor == 1 else query.to(dtype) * factor
    if gallery is query:
        return scaled, scaled
    return scaled, gallery.to(dtype) if factor == 1 else gallery.to(dtype) * factor
