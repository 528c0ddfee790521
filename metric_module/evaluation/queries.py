"""Results of single queries: ranks of their positives, joined over blocks and processes, and their means.

Shapes: Q = queries, A = queries in a block, K = most positives of a query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from metric_module.distributed import gather_rows, row_counts, world_size
from metric_module.evaluation.exact.threads import in_threads

Block = TypeVar("Block")
Results = TypeVar("Results", bound="tuple[Tensor, ...]")
"""A named tuple of one tensor ``(Q, ...)`` per result; the first one holds the rows of the queries, int64 ``(Q,)``."""


def measure_blocks(
    measure: Callable[[Block], Iterable[Results]], blocks: Sequence[Block], threaded: bool, empty: Results
) -> Results:
    """Measure blocks of queries, and join what they give in order of row.

    Args:
        measure: Gives any number of results of one block.
        blocks: The blocks.
        threaded: Whether ``measure`` may run in several threads at once.
        empty: Results of no query.
    """
    found = in_threads(measure, blocks) if threaded else map(measure, blocks)
    return _joined([empty, *(part for parts in found for part in parts)])


def gather_queries(found: Results, device: torch.device) -> Results:
    """Join the results of all processes in order of row; every process must call it.

    Args:
        found: The results of this process.
        device: A device on which processes can exchange tensors.
    """
    if world_size() == 1:
        return found
    sizes = row_counts(found[0].to(device))
    return _joined([_like(found, [gather_rows(part.to(device), sizes).cpu() for part in found])])


def rank_positives(sizes: Tensor, closer: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the rank of each positive, and the precision up to it.

    Args:
        sizes: Number of positives of each query ``(A,)``.
        closer: Number of misses at the distance of each positive or closer, nearest positive first, ``(A, K)``.

    Returns:
        Ranks, int64 ``(A, K)``, the largest integer where a query has fewer positives; precisions, float64 ``(A, K)``,
        0 there.
    """
    slot = torch.arange(1, closer.shape[1] + 1)  # (K,)
    real = slot <= sizes[:, None]  # (A, K)
    rank = (closer + slot).masked_fill(~real, torch.iinfo(torch.int64).max)  # (A, K)
    return rank, torch.where(real, slot.double() / rank, 0.0)


def row_sums(values: Tensor) -> Tensor:
    """Sum rows ``(A, K)`` from left to right, so that the padding of a block does not change the rounding: ``(A,)``."""
    return values.cumsum(dim=1)[:, -1]


def mean(values: Tensor) -> float:
    """Average ``(Q,)`` with one rounding at the end, so that the order of the queries does not show."""
    return math.fsum(values.tolist()) / len(values)


def _joined(parts: Sequence[Results]) -> Results:
    whole = [torch.cat(part) for part in zip(*parts, strict=True)]
    order = whole[0].argsort()
    return _like(parts[0], [part[order] for part in whole])


def _like(results: Results, tensors: Sequence[Tensor]) -> Results:
    return type(results)(*tensors)
