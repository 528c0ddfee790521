"""Checks of an encoder's inputs, with an error message of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from metric_module.batch import is_texts
from metric_module.errors import UserError


def check_floats(encoder: nn.Module, inputs: Any, shape: Sequence[int | str], setting: str = "") -> None:
    """Accept a float tensor of a shape.

    Args:
        encoder: The encoder that was called, for the message.
        inputs: Its inputs.
        shape: Each size, or a letter where any size is allowed; ``...`` at the end stands for one or more dimensions.
        setting: The setting that determines the shape, for the message.

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
    raise UserError(
        f"{type(encoder).__name__}: expected {expected}{where}, got {describe(inputs)}{_order(inputs, shape)}"
    )


def check_texts(encoder: nn.Module, inputs: Any) -> None:
    """Accept a list or tuple of texts.

    Args:
        encoder: The encoder that was called, for the message.
        inputs: Its inputs.

    Raises:
        UserError: If they are anything else.
    """
    if not is_texts(inputs):
        raise UserError(f"{type(encoder).__name__}: expected a list of str, got {describe(inputs)}")


def describe(inputs: Any) -> str:
    """Describe inputs that do not fit; texts come with the names of the encoders that take them."""
    if is_texts(inputs):
        return f"a {type(inputs).__name__} of str; encoder=char_conv_net and encoder=text take texts"
    if isinstance(inputs, Mapping):
        return f"a dict with keys {', '.join(map(str, inputs))}"
    return f"{inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__


def _fits(inputs: Tensor, shape: Sequence[int | str]) -> bool:
    if shape[-1] == "...":
        return inputs.ndim >= len(shape)
    return inputs.ndim == len(shape) and all(
        isinstance(size, str) or own == size for own, size in zip(inputs.shape, shape, strict=True)
    )


def _order(inputs: Any, shape: Sequence[int | str]) -> str:
    last = isinstance(inputs, Tensor) and inputs.ndim == len(shape) == 4 and inputs.shape[3] == shape[1]
    return "; channels come before height and width: inputs.permute(0, 3, 1, 2)" if last else ""


def check_ids(ids: Tensor, least: int, count: int) -> None:
    """Accept int64 ids of any shape in ``[least, count)``.

    Args:
        ids: The ids.
        least: The lowest id that is allowed.
        count: The number of ids from 0 on, ``encoder.count``.

    Raises:
        UserError: Naming the first id that is out of range.
    """
    if ids.numel() and not (int(ids.min()) >= least and int(ids.max()) < count):
        bad = ids[(ids < least) | (ids >= count)]
        outside = f"{len(bad)} of {ids.numel()} in a batch are out of range"
        raise UserError(f"encoder.count: expected ids in [{least}, {count}), got {int(bad[0])} ({outside})")
