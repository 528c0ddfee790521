"""Operators and host synchronisations of a piece of work, counted while it runs.

On CUDA a host synchronisation is a warning of ``torch.cuda.set_sync_debug_mode``. On the CPU nothing has to wait; there
it is an operation that would make the host wait for a GPU: a value read back, or a size that depends on values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

READS = ("tolist", "numpy", "cpu", "__array__")
WAITING = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::unique",
    "aten::_unique",
    "aten::masked_select",
    "aten::repeat_interleave.Tensor",
    "aten::bincount",
)
WARNING = "called a synchronizing CUDA operation"


@dataclass
class Counts:
    """Counters of operators and host synchronisations.

    Attributes:
        operators: Operators that the dispatcher of torch called.
        syncs: Host synchronisations.
    """

    operators: int = 0
    syncs: int = 0


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, and on request those whose result the host must wait for."""

    def __init__(self, counts: Counts, waits: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts, self.waits = counts, waits

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.counts.operators += 1
        self.counts.syncs += self.waits and _waits(func.name(), args)
        return func(*args, **(kwargs or {}))


def _waits(name: str, args: Sequence[Any]) -> bool:
    """Whether the host must wait for an operator on a GPU; indexing by a mask does not say so by its name."""
    mask = name.startswith("aten::index.") and any(index is not None and index.dtype == torch.bool for index in args[1])
    return mask or name.startswith(WAITING)


def _read(copy: Callable[..., Any], counts: Counts) -> Callable[..., Any]:
    """Wrap a method that copies a tensor to the host: count its calls, each once, whatever operators it calls."""

    @wraps(copy)
    def counted(*args: Any, **kwargs: Any) -> Any:
        """Copy and count."""
        before = counts.syncs
        found = copy(*args, **kwargs)
        counts.syncs = before + 1
        return found

    return counted


@contextmanager
def counting(device: str) -> Iterator[Counts]:
    """Count what runs inside; the number of synchronisations is complete after the end.

    Args:
        device: ``"cuda"`` or ``"cpu"``.

    Example:
        >>> with counting("cpu") as counts:
        ...     total = (torch.ones(3) + 1).sum().item()
        >>> counts
        Counts(operators=4, syncs=1)
    """
    counts, caught = Counts(), []
    with ExitStack() as stack:
        if device == "cuda":
            caught = stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            stack.callback(torch.cuda.set_sync_debug_mode, "default")
        else:
            # Not a TorchFunctionMode: it is off within every function that it handles, so in all of a backward pass.
            for name in READS:
                stack.enter_context(patch.object(Tensor, name, _read(getattr(Tensor, name), counts)))
        stack.enter_context(_Operators(counts, waits=device != "cuda"))
        yield counts
    counts.syncs += sum(WARNING in str(warning.message) for warning in caught)


class CountSteps(Callback):
    """Counts each training step, from the batch on the device to the step of the optimizer.

    On the CPU the synchronisations of the optimizer are left out: it reads counters that are on the host anyway.

    Args:
        device: ``"cuda"`` or ``"cpu"``.

    Attributes:
        steps: The counts of each step.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[Counts] = []
        self._before_optimizer = 0
        self._open: AbstractContextManager[Counts] | None = None

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to count."""
        self._open = counting(self.device)
        self.steps.append(self._open.__enter__())

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Remember what was counted before the optimizer."""
        self._before_optimizer = self.steps[-1].syncs

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting."""
        assert self._open is not None  # the batch has started
        self._open.__exit__(None, None, None)
        if self.device == "cpu":
            self.steps[-1].syncs = self._before_optimizer
