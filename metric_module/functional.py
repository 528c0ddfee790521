"""Small numerical functions used throughout the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MATMUL = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # not in torch's types
"""Settings of float32 products on GPU and CPU. Unlike ``torch.set_float32_matmul_precision``, they do not raise after a
user has set one of them."""

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices without float64; computations in float64 are done on the CPU for them."""


def float64_device(device: torch.device) -> torch.device:
    """Return the device itself, or the CPU if it has no float64.

    Example:
        >>> float64_device(torch.device("mps"))
        device(type='cpu')
    """
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def in_float64_reach(values: Any) -> Any:
    """Move a tensor to the CPU if its device has no float64; return any other value as it is."""
    return values.to(float64_device(values.device)) if isinstance(values, Tensor) else values


def move(values: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to ``device``; float64 becomes float32 where the device has no float64."""
    narrow = values.dtype == torch.float64 and device.type in WITHOUT_FLOAT64
    return (values.float() if narrow else values).to(device)


def unit(vectors: Tensor) -> Tensor:
    """Scale each row to length one, in float32 or better.

    ``unit(x) = x / |x|``; a row shorter than 1e-12 becomes zero with zero gradient, so that neither the value nor the
    gradient is ever infinite. A row whose length overflows becomes NaN, for later checks.

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
    norm = norm.masked_fill(norm.isinf(), torch.nan)  # it overflowed: not a zero, which later checks would let pass
    usable = ~(norm <= 1e-12)  # a NaN remains a NaN, for later checks
    return torch.where(usable, vectors / torch.where(usable, norm, 1.0), 0.0)


def at_least_float32(values: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32, and leave float32 and float64 as they are."""
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Compute float32 products in float32 within this context: no autocast, no TF32, no bfloat16.

    Args:
        device: Type of the device, for example ``"cuda"``.
    """
    before = [backend.fp32_precision for backend in MATMUL]
    for backend in MATMUL:
        backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            yield
    finally:
        for backend, precision in zip(MATMUL, before, strict=True):
            backend.fp32_precision = precision


def nonfinite_rows(values: Tensor) -> Tensor:
    """Find the rows of ``values`` ``(N, D)`` with a NaN or an infinity: indices, int64 ``(n,)``."""
    # The usual case, at a third of the cost: a NaN or an infinity propagates to the sum.
    if bool(torch.isfinite(values.sum())):
        return torch.zeros(0, dtype=torch.int64, device=values.device)
    return (~torch.isfinite(values).all(dim=1)).nonzero().flatten()


def window_limit(dtype: torch.dtype) -> float:
    """Return an upper bound on distances and edges of windows; references that are masked out get twice this value.

    Its products with 0 remain 0, and its sums with distances remain finite.
    """
    return torch.finfo(dtype).max / 8


def rows_of(values: Tensor, rows: slice) -> Tensor:
    """Return some rows of ``(B, ...)``; the tensor itself if these are all, which saves an operator."""
    return values if rows == slice(0, len(values)) else values[rows]


def sort_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row of ``(A, M)``: values in ascending order, and their columns; of equal values the first comes first.

    On CPUs NumPy sorts integers many times faster than torch sorts floats. The bits of a float32 order like its value,
    once those of negative ones are flipped; with the column in the lower half of an int64 they need no indices.

    Args:
        values: Floating point, without gradient.

    Example:
        >>> sort_rows(torch.tensor([[2.0, -1.0, 0.5, -1.0]]))
        (tensor([[-1.0000, -1.0000,  0.5000,  2.0000]]), tensor([[1, 3, 2, 0]]))
    """
    if values.device.type != "cpu" or values.dtype != torch.float32 or sys.byteorder != "little":
        return values.sort(dim=1, stable=True)
    keys = np.empty(values.shape, np.int64)
    column, bits = np.moveaxis(keys.view(np.int32).reshape(*values.shape, 2), -1, 0)  # views of the halves, (A, M)
    column[:] = np.arange(values.shape[1], dtype=np.int32)
    bits[:] = _flipped(np.from_dlpack(values.contiguous()).view(np.int32))
    keys.sort(axis=1)
    return torch.from_numpy(_flipped(bits).view(np.float32)), torch.from_numpy(column.astype(np.int64))


def _flipped(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Flip all bits but the sign of negative integers; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
