"""A device without float64, played by the CPU: what would fail on Apple's MPS fails here.

Its tensors say that they are on ``meta``, the only other device that every build of torch has, and hold their values on
the CPU. An operation on them and on tensors of the CPU fails, and so does one that gives float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from typing_extensions import override

from metric_module import functional

DEVICE = torch.device("meta")


class _OnDevice(Tensor):
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        if held.dtype == torch.float64:
            raise TypeError("Cannot convert a tensor to float64 dtype: this device does not support it")
        made: _OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})


class _Factories(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what makes a tensor on the device without taking one."""

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [isinstance(tensor, _OnDevice) for tensor in tensors]
    copies = func in {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}
    if any(here) and not copies and any(not own and tensor.ndim for own, tensor in zip(here, tensors, strict=True)):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, got some on the CPU")
    target = kwargs.get("device")
    kwargs = {name: torch.device("cpu") if value == DEVICE else value for name, value in kwargs.items()}
    result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func._schema.name.endswith("_") and not func._schema.name.endswith("__"):  # in place, and not __and__
        return args[0]
    stays = any(here) if target is None else target == DEVICE
    return tree_map(lambda value: _OnDevice(value) if isinstance(value, Tensor) else value, result) if stays else result


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _OnDevice) else value


@contextmanager
def device_without_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Let the project take :data:`DEVICE` for one without float64.

    Yields:
        What moves a tensor or a module there.
    """
    monkeypatch.setattr(functional, "WITHOUT_FLOAT64", {DEVICE.type})

    def move(what: Any) -> Any:
        """Move a tensor there, or the tensors of a module."""
        if isinstance(what, Tensor):
            return what.to(DEVICE)
        for part in what.modules():
            for name, tensor in part._parameters.items():
                part._parameters[name] = None if tensor is None else nn.Parameter(tensor.detach().to(DEVICE))
            for name, tensor in part._buffers.items():
                part._buffers[name] = None if tensor is None else tensor.to(DEVICE)
        return what

    with _Factories():  # type: ignore[no-untyped-call]
        yield move
