"""Collectives over the training processes: gathered rows with gradients, and sums.

Shapes: B = rows of this process, G = rows of all processes, D = embedding size, W = world size.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from metric_module.errors import UserError


class Together(NamedTuple):
    """The batch of all processes, in order of rank.

    Attributes:
        embeddings: Differentiable, ``(G, D)``.
        labels: Class of each, int64 ``(G,)``.
        ids: Identity of each, int64 ``(G,)``, or None.
        own: The rows of this process.
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor | None
    own: slice


def world_size() -> int:
    """Return the number of processes that train together, W; 1 without distribution."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shard() -> tuple[int, int]:
    """Return the rank of this process and the world size: ``(0, 1)`` without distribution."""
    return (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)


def gather_batch(embeddings: Tensor, labels: Tensor, ids: Tensor | None) -> Together:
    """Gather the batches of all processes, embeddings with gradients; every process must call it.

    Args:
        embeddings: Rows of this process ``(B, D)``; B may differ between processes, and be 0.
        labels: Class of each, int64 ``(B,)``.
        ids: Identity of each, int64 ``(B,)``; given by all processes or by none.
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
    """Count the rows ``(B, ...)`` of each process, W integers; every process must call it."""
    if world_size() == 1:
        return [len(rows)]
    count = torch.tensor([len(rows)], device=rows.device)  # (1,)
    counts = count.new_empty(world_size())  # (W,)
    dist.all_gather(list(torch.split(counts, 1)), count)
    sizes: list[int] = counts.tolist()
    return sizes


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Gather the rows of all processes, in order of rank; differentiable if they are floating point.

    The gradient of a row is the sum of its gradients on all processes.

    Args:
        rows: Rows of this process ``(B, ...)``.
        sizes: Number of rows of each process, from :func:`row_counts`.

    Returns:
        ``(G, ...)``.
    """
    if world_size() == 1 or sum(sizes) == 0:
        return rows
    gathered: Tensor = _Gather.apply(rows, sizes)
    return gathered


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor of any shape over all processes; every process must call it."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def gather_objects(own: Any) -> list[Any]:
    """Gather a value of plain types from all processes, in order of rank; every process must call it.

    Args:
        own: The value of this process.
    """
    found = [own] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, own)
    return found


def whole(value: Any) -> Any:
    """Gather a tensor of which each process has a shard, to the CPU; every process must call it.

    Args:
        value: A ``DTensor``; anything else is returned as it is.
    """
    return value.full_tensor().cpu() if isinstance(value, _dtensor()) else value


def shard_like(value: Any, like: Any) -> Any:
    """Take this process's shard of a whole tensor.

    Args:
        value: A tensor, the same on every process.
        like: A ``DTensor`` that says how tensors of its shape are divided; otherwise ``value`` is returned as it is.
    """
    if not isinstance(like, _dtensor()) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device).contiguous(), like.device_mesh, like.placements, src_data_rank=None)


def is_sharded(module: nn.Module) -> bool:
    """Return whether calling a module, or a part of it, gathers weights that are divided among the processes.

    Args:
        module: Any module.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # without, there are no shards
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def _dtensor() -> tuple[type[Any], ...]:
    """``DTensor``, if anything has imported it: without, there are no shards."""
    module = sys.modules.get("torch.distributed.tensor")
    return () if module is None else (module.DTensor,)


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
        # Gloo lacks reduce_scatter for some types, so all processes get all sums and keep their own.
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[dist.get_rank()], None


def check_shares(name: str, batch: int, world_size: int) -> None:
    """Accept a size of a global batch that divides evenly among the processes.

    Args:
        name: Name of the argument, for the message.
        batch: Size of the global batch.
        world_size: Number of processes.

    Raises:
        UserError: If it does not.
    """
    if batch % world_size:
        fewer = max(1, batch // world_size) * world_size
        raise UserError(f"{name}: expected a multiple of {world_size} processes, for example {fewer}, got {batch}")
