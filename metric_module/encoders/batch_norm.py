"""BatchNorm where a forward pass runs twice, or sees a part of the batch only."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metric_module.errors import UserError


def track_statistics_once(module: nn.Module) -> None:
    """Keep running statistics of BatchNorm unchanged while a forward pass is recomputed within a backward pass.

    Otherwise they would count every step twice. Outputs and gradients do not change.

    Args:
        module: Module that contains the BatchNorms, changed in place.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and norm.track_running_stats:
            norm.register_forward_pre_hook(_pause_tracking)
            # Always called, since recomputation may stop within a layer, as soon as the needed tensors exist.
            norm.register_forward_hook(_resume_tracking, always_call=True)


def _pause_tracking(norm: Any, inputs: Any) -> None:
    recomputed = torch._C._current_graph_task_id() != -1  # a backward pass is in progress
    if recomputed and norm.training:
        norm.own_momentum = norm.momentum
        # Not track_running_stats=False, with which fewer tensors would be kept than in the first pass.
        norm.momentum = 0.0


def _resume_tracking(norm: Any, inputs: Any, output: Any) -> None:
    if hasattr(norm, "own_momentum"):
        norm.momentum = norm.own_momentum
        del norm.own_momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.sub_(1)


def refuse_batch_norm(encoder: nn.Module) -> None:
    """Accept an encoder whose samples do not interact through the statistics of a batch.

    Raises:
        UserError: Naming a BatchNorm that takes its statistics from the batch.
    """
    for name, norm in norms_with_batch_statistics(encoder).items():
        raise UserError(
            f"module.encode_chunk_size: {type(encoder).__name__}.{name} is a {type(norm).__name__} in training mode, "
            "whose statistics would be those of a chunk; keep it in evaluation mode (frozen), use a norm within each "
            "sample (LayerNorm, GroupNorm), or encode_chunk_size=null"
        )


def warn_of_local_statistics(encoder: nn.Module, device: str) -> None:
    """Warn if an encoder that trains on several processes normalises with the statistics of one process's shard.

    Args:
        encoder: The encoder.
        device: Type of the device; ``cpu`` has no SyncBatchNorm.
    """
    norms = norms_with_batch_statistics(encoder)
    local = [name for name, norm in norms.items() if not isinstance(norm, nn.SyncBatchNorm)]
    if local:
        advice = "its" if device == "cpu" else "set trainer.sync_batchnorm=true, or its"
        rank_zero_warn(
            f"{type(encoder).__name__} has BatchNorm in {len(local)} places (the first: {local[0]}): {advice} "
            "statistics are those of each process's shard of the batch"
        )


def norms_with_batch_statistics(encoder: nn.Module) -> dict[str, nn.Module]:
    """Find the BatchNorms that take their statistics from the batch, by name.

    Args:
        encoder: Any module.
    """
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    }
