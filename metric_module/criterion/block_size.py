"""Size of the blocks of distances. No result depends on it, but for the rounding of sums."""

from __future__ import annotations

from collections.abc import Iterator

import torch

MEMORY_BUDGET = 16 * 2**20
"""Largest total size of the ``(A, M)`` tensors of one block on the CPU, in bytes: they stay in the caches."""

FEWEST_ROWS = 64
"""Fewest anchors in a block on the CPU, whatever the budget: the products of fewer take longer."""

_SHARE_OF_DEVICE = 1 / 16
"""Share of a GPU's memory for one block. A share of what is free would change from run to run, and with the size of the
blocks the rounding of the sums."""

TENSORS_PER_BLOCK = 8
"""Number of ``(A, M)`` tensors of a block that exist at once."""


def blocks(anchors: int, references: int, element_size: int, device: torch.device) -> Iterator[slice]:
    """Divide the anchors into blocks whose ``(A, M)`` tensors fit into the memory for one block."""
    size = max(1, cells_at_once(element_size, device) // max(1, references))
    size = size if device.type == "cuda" else max(size, FEWEST_ROWS)
    for start in range(0, anchors, size):
        yield slice(start, min(start + size, anchors))


def cells_at_once(element_size: int, device: torch.device) -> int:
    """Number of distances in one block."""
    budget = MEMORY_BUDGET
    if device.type == "cuda":
        budget = int(torch.cuda.get_device_properties(device).total_memory * _SHARE_OF_DEVICE)
    return budget // (TENSORS_PER_BLOCK * element_size)
