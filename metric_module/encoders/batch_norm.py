"""Activation checkpointing: what must not happen twice when a forward pass is computed again for its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def track_statistics_once(module: nn.Module) -> None:
    """Keep running statistics of BatchNorm as they are while a forward pass is computed again in a backward pass.

    Otherwise every step would count twice in them. Outputs and gradients do not change.

    Args:
        module: Whose BatchNorms, in place.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats:
            part.register_forward_pre_hook(_pause)
            # Always: what is computed again may stop amid a layer, as soon as all that is needed is there.
            part.register_forward_hook(_go_on, always_call=True)


def _pause(part: Any, inputs: Any) -> None:
    again = torch._C._current_graph_task_id() != -1  # a backward pass is going on
    if again and part.training:
        part.own_momentum = part.momentum
        part.momentum = 0.0  # of what comes in; without statistics, fewer tensors would be kept than the first time


def _go_on(part: Any, inputs: Any, output: Any) -> None:
    if hasattr(part, "own_momentum"):
        part.momentum = part.own_momentum
        del part.own_momentum
        if part.num_batches_tracked is not None:
            part.num_batches_tracked.sub_(1)
