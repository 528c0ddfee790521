"""Random numbers as a pure function of integer keys: no state, no seed to set, no generator to save or restore.

Equal keys give equal numbers on any device, in any order, in blocks of any size, on any number of processes. The hash
is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 15) in int64
arithmetic, which wraps around like its unsigned original.

Shapes: B = keys, n = numbers for each key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.functional import float64_device, move

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND = 0x94D049BB133111EB - (1 << 64)


def keyed_uniform(key: Tensor, n: int) -> Tensor:
    """Draw uniform numbers in [0, 1), n for each key.

    Number i of key k is ``mix(mix(k) + (i + 1) * golden) >> 11`` in units of 2^-53: numbers of one key and of different
    keys are independent, and the first ones do not change with n.

    Args:
        key: Keys, int64 ``(B,)``. Any integers are good keys, consecutive ones too.
        n: Number of random numbers for each key.

    Returns:
        Float64 ``(B, n)`` on the device of the keys; float32 if that device has no float64.

    Raises:
        UserError: If the keys are not int64 ``(B,)``, or n is negative.

    Example:
        >>> numbers = keyed_uniform(torch.tensor([3, 4]), 2)
        >>> torch.equal(numbers[1:], keyed_uniform(torch.tensor([4]), 2))
        True
    """
    if key.dtype != torch.int64 or key.ndim != 1:
        raise UserError(f"expected keys as an int64 tensor of shape (B,), got {key.dtype} of shape {tuple(key.shape)}")
    if n < 0:
        raise UserError(f"expected n >= 0 numbers per key, got {n}")
    keys = key.to(float64_device(key.device))  # (B,)
    counter = torch.arange(1, n + 1, device=keys.device)  # (n,)
    bits = mix(mix(keys)[:, None] + counter * GOLDEN)  # (B, n)
    return move(_shift(bits, 11).double() * 2.0**-53, key.device)  # (B, n)


def combine(*parts: int | Tensor) -> Tensor:
    """Hash several integers into one key; tensors are combined element by element and broadcast.

    The order and the number of the parts matter: ``combine(1, 2)``, ``combine(2, 1)`` and ``combine(1, 2, 0)`` differ.

    Args:
        parts: Integers (taken modulo 2^64) or integer tensors, at least one.

    Returns:
        Int64 keys in the broadcast shape of the parts; a 0-d tensor if all of them are integers.

    Raises:
        UserError: If there are no integers, or one has another type.

    Example:
        >>> combine(0, torch.arange(3)).shape
        torch.Size([3])
    """
    if not parts:
        raise UserError("expected at least one part to combine into a key, got none")
    key = torch.tensor(len(parts))
    for part in parts:
        key = mix(key + _as_int64(part) + GOLDEN)
    return key


def mix(x: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser, a bijection in which every output bit depends on every input bit.

    Args:
        x: Int64 tensor of any shape.

    Returns:
        Int64 tensor of the same shape.
    """
    x = (x ^ _shift(x, 30)) * FIRST
    x = (x ^ _shift(x, 27)) * SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _as_int64(part: int | Tensor) -> Tensor:
    if isinstance(part, Tensor):
        if part.is_floating_point() or part.is_complex() or part.dtype == torch.bool:
            raise UserError(f"expected integers to combine into a key, got a tensor of {part.dtype}")
        return part.long()
    if isinstance(part, bool) or not isinstance(part, int):
        raise UserError(f"expected integers to combine into a key, got {part!r}")
    wrapped = part % (1 << 64)
    return torch.tensor(wrapped - (1 << 64) if wrapped >= 1 << 63 else wrapped)
