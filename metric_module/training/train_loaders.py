"""Checks of training loaders whose sampler yields whole batches of one process, such as PKSampler."""

from __future__ import annotations

from typing import Any

import torch

from metric_module.distributed import shard, sum_over_ranks
from metric_module.errors import UserError
from metric_module.sample_ids import flat_loaders, original_sampler, sampler_of

WRITE = "write DataLoader(data, sampler=sampler, batch_size=sampler.batch_size)"


def check_train_loaders(loaders: Any, device: torch.device) -> None:
    """Check that batches come as their sampler draws them; every process must call it.

    A sampler is checked if it has ``batch_size``, ``rank`` and ``world_size``.

    Args:
        loaders: The training loaders, as the trainer uses them on this process.
        device: A device on which processes can exchange tensors.

    Raises:
        UserError: On all processes, if the loader of any process gives other batches.
    """
    problem = next(filter(None, map(_problem, flat_loaders(loaders))), "")
    if int(sum_over_ranks(torch.tensor([int(bool(problem))], device=device))):
        raise UserError(problem or "train_dataloader: the loader of another process cannot be used, see its message")


def _problem(loader: Any) -> str:
    """Say what is wrong with a loader and what to write instead; empty if nothing is."""
    rank, processes = shard()
    found, batches = sampler_of(loader), getattr(loader, "batch_sampler", None)
    sampler = original_sampler(found)
    if not all(hasattr(sampler, name) for name in ("batch_size", "rank", "world_size")):
        return ""
    name = type(sampler).__name__
    if sampler is batches:
        return f"batch_sampler: {name} yields samples, not batches; {WRITE}"
    here = f"{name}(..., rank=trainer.global_rank, world_size=trainer.world_size)"
    if sampler is not found:
        return (
            f"Trainer: expected use_distributed_sampler=False, or Lightning shuffles the batches of {name}; "
            f"write Trainer(use_distributed_sampler=False) and {here}"
        )
    if (sampler.rank, sampler.world_size) != (rank, processes):
        got = f"rank={sampler.rank} and world_size={sampler.world_size}"
        return f"{name}: expected rank={rank} and world_size={processes}, got {got}; write {here}"
    size = getattr(batches, "batch_size", None)
    if size != sampler.batch_size:
        return f"batch_size: expected {sampler.batch_size}, the samples of a batch of {name}, got {size}; {WRITE}"
    return ""
