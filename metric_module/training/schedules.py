"""Learning rate schedules that depend on the length of training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from metric_module.errors import UserError


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.05) -> LambdaLR:
    """Increase linearly, then decrease to zero along half a cosine (Loshchilov and Hutter 2017, equation 5, one cycle).

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        total_steps: Number of optimizer steps of the whole training.
        warmup_fraction: Share of the steps in which the rates increase, in [0, 1).

    Returns:
        The schedule, to be stepped after every batch.

    Raises:
        UserError: If an argument is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = warmup_cosine(optimizer, total_steps=4, warmup_fraction=0.25)
        >>> schedule.lr_lambdas[0](2)
        0.75
    """
    if total_steps < 1:
        raise UserError(f"warmup_cosine: expected total_steps >= 1, got {total_steps}")
    if not 0 <= warmup_fraction < 1:
        raise UserError(f"warmup_cosine: expected 0 <= warmup_fraction < 1, got {warmup_fraction}")
    warmup = round(total_steps * warmup_fraction)

    def factor(step: int) -> float:
        """Factor on the learning rate at a step."""
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
