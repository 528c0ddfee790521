"""Counts of the values in a row that reach a threshold: the one pass over all pairs that evaluation makes.

Shapes: A = rows, T = values in a row, K = thresholds of a row.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Above this many thresholds sorting the row is cheaper than comparing it with each.
_MANY = 48
_CELLS_AT_ONCE = 1 << 18


def count_at_least(values: Tensor, thresholds: Tensor) -> Tensor:
    """Count, for each row and threshold, the values that reach it.

    ``count[a, k] = #{t : values[a, t] >= thresholds[a, k]}``

    Args:
        values: Values ``(A, T)``, float32 or float64.
        thresholds: Thresholds ``(A, K)`` of the same type.

    Returns:
        Counts ``(A, K)``, int64.

    Example:
        >>> count_at_least(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0]])).tolist()
        [[3, 0]]
    """
    return _by_comparison(values, thresholds) if thresholds.shape[1] <= _MANY else _by_sorting(values, thresholds)


def _by_comparison(values: Tensor, thresholds: Tensor) -> Tensor:
    # A few rows at a time stay in the cache; numbers compare and add faster than bools. Sums of ones are exact.
    rows = max(1, _CELLS_AT_ONCE // max(1, values.shape[1]))
    reached = torch.empty(min(rows, len(values)), values.shape[1], dtype=values.dtype, device=values.device)  # (a, T)
    counts = torch.empty_like(thresholds)  # (A, K)
    for first in range(0, len(values), rows):
        part = values[first : first + rows]  # (a, T)
        for k in range(thresholds.shape[1]):
            torch.ge(part, thresholds[first : first + rows, k, None], out=reached[: len(part)])
            torch.sum(reached[: len(part)], dim=1, out=counts[first : first + rows, k])
    return counts.long()


def _by_sorting(values: Tensor, thresholds: Tensor) -> Tensor:
    below = torch.searchsorted(ascending(values), thresholds.contiguous())  # (A, K)
    return values.shape[1] - below


def ascending(values: Tensor) -> Tensor:
    """Sort values ``(P,)`` or each row of ``(A, T)``; on a CPU NumPy does so many times faster than torch."""
    if values.device.type != "cpu":
        return values.sort(dim=-1).values
    threads = min(torch.get_num_threads(), len(values)) if values.ndim == 2 else 1
    if threads < 2:
        return torch.from_numpy(np.sort(values.numpy()))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(np.sort, np.array_split(values.numpy(), threads)))
    return torch.from_numpy(np.concatenate(parts))
