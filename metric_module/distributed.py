"""Many processes as one: rows of all ranks with gradients, and sums over ranks.

Shapes: B = rows of this rank, G = rows of all ranks together, D = embedding size, W = number of ranks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override


class Together(NamedTuple):
    """The batch of all ranks, in order of rank.

    Attributes:
        embeddings: Differentiable, ``(G, D)``.
        labels: Class of each, int64 ``(G,)``.
        ids: Identity of each, int64 ``(G,)``, or None.
        own: The rows of this rank.
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor | None
    own: slice


def world_size() -> int:
    """Number of processes that train together, W; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shard() -> tuple[int, int]:
    """Rank of this process, and the world size: ``(0, 1)`` where nothing is distributed."""
    return (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)


def gather_batch(embeddings: Tensor, labels: Tensor, ids: Tensor | None) -> Together:
    """Bring the batches of all ranks together; every rank must call it, with as many rows as it has.

    Args:
        embeddings: Rows of this rank ``(B, D)``; B may differ from rank to rank, and be 0.
        labels: Class of each, int64 ``(B,)``.
        ids: Identity of each, int64 ``(B,)``; on all ranks or on none.
    """
    if world_size() == 1:
        return Together(embeddings, labels, ids, slice(0, len(labels)))
    sizes = row_counts(labels)
    numbers = torch.stack([labels, labels if ids is None else ids], dim=1)  # (B, 2)
    together = gather_rows(numbers, sizes)  # (G, 2)
    first = sum(sizes[: dist.get_rank()])
    return Together(
        gather_rows(embeddings, sizes),
        together[:, 0].contiguous(),
        None if ids is None else together[:, 1].contiguous(),
        slice(first, first + len(labels)),
    )


def row_counts(rows: Tensor) -> list[int]:
    """How many rows ``(B, ...)`` each rank has, W numbers."""
    if world_size() == 1:
        return [len(rows)]
    count = torch.tensor([len(rows)], device=rows.device)  # (1,)
    counts = count.new_empty(world_size())  # (W,)
    dist.all_gather(list(torch.split(counts, 1)), count)
    sizes: list[int] = counts.tolist()
    return sizes


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """The rows of all ranks, in order of rank; differentiable if they are floating point.

    The gradient of a row is the sum of what all ranks hand back for it.

    Args:
        rows: Rows of this rank ``(B, ...)``.
        sizes: Rows of each rank, from :func:`row_counts`.

    Returns:
        ``(G, ...)``.
    """
    if world_size() == 1 or sum(sizes) == 0:
        return rows
    gathered: Tensor = _Gather.apply(rows, sizes)
    return gathered


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of all ranks' values, of any shape; every rank must call it."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        largest = max(sizes)
        padded = rows.new_zeros(largest, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = rows.new_empty(len(sizes), *padded.shape)  # (W, largest, ...)
        dist.all_gather(list(gathered.unbind()), padded)
        if min(sizes) == largest:
            return gathered.flatten(0, 1)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        # Gloo has no reduce_scatter for every type, so all ranks get all sums and keep their own.
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[dist.get_rank()], None
