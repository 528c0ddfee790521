"""What an encoder of numbers takes, and one line about anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from metric_module.batch import is_texts
from metric_module.errors import UserError


def check_floats(encoder: nn.Module, inputs: Any, shape: Sequence[int | str], setting: str = "") -> None:
    """Accept a float tensor of a shape.

    Args:
        encoder: Whose inputs they are.
        inputs: Whatever it was called with.
        shape: Each size, or its letter if any size will do; ``...`` at the end is any sizes, but at least one.
        setting: Which setting says so.

    Raises:
        UserError: If they are anything else.

    Example:
        >>> import torch
        >>> check_floats(nn.Identity(), torch.zeros(2, 3, 8, 8), ("B", 3, "H", "W"))
        >>> check_floats(nn.Identity(), ["one", "two"], ("B", "..."))
        Traceback (most recent call last):
        metric_module.errors.UserError: Identity: expected a float tensor of shape [B, ...], got a list of str; ...
    """
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and _fits(inputs, shape):
        return
    expected = f"a float tensor of shape [{', '.join(map(str, shape))}]"
    where = f" ({setting})" if setting else ""
    hint = advice(inputs) or _order(inputs, shape)
    raise UserError(f"{type(encoder).__name__}: expected {expected}{where}, got {told(inputs)}{hint}")


def _fits(inputs: Tensor, shape: Sequence[int | str]) -> bool:
    if shape[-1] == "...":
        return inputs.ndim >= len(shape)
    return inputs.ndim == len(shape) and all(
        isinstance(size, str) or own == size for own, size in zip(inputs.shape, shape, strict=True)
    )


def told(inputs: Any) -> str:
    """What some inputs are."""
    if is_texts(inputs):
        return f"a {type(inputs).__name__} of str"
    return f"{inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__


def advice(inputs: Any) -> str:
    """Which encoders take them, if they are texts."""
    return "; encoder=char_conv_net and encoder=text take texts" if is_texts(inputs) else ""


def _order(inputs: Any, shape: Sequence[int | str]) -> str:
    last = isinstance(inputs, Tensor) and inputs.ndim == len(shape) == 4 and inputs.shape[3] == shape[1]
    return "; channels come before height and width: inputs.permute(0, 3, 1, 2)" if last else ""
