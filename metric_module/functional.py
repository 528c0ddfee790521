"""Small numerical pieces that several parts share."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Scale each row to length one, in float32 or better.

    ``unit(x) = x / |x|``; a row shorter than 1e-12 becomes zero with zero gradient, so that neither the value nor the
    gradient is ever infinite.

    Args:
        vectors: Rows to scale, ``(..., D)``. float16 and bfloat16 come back as float32.

    Returns:
        Unit rows, ``(..., D)``.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = at_least_float32(vectors)
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # (..., 1)
    usable = ~(norm <= 1e-12)  # a NaN stays a NaN, for others to find
    return torch.where(usable, vectors / torch.where(usable, norm, 1.0), 0.0)


def at_least_float32(values: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32, and leave float32 and float64 as they are."""
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


def nonfinite_rows(values: Tensor) -> Tensor:
    """Indices of the rows of ``values`` ``(N, D)`` that hold a NaN or an infinity, int64 ``(n,)``."""
    return (~torch.isfinite(values).all(dim=1)).nonzero().flatten()
