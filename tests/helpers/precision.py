"""The ways in which a user lets products of float32 be computed with fewer digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from metric_module.functional import MATMUL

Lowered = Callable[[], AbstractContextManager[None]]


@contextmanager
def by_the_common_setting() -> Iterator[None]:
    """Until torch 2.8 the only way; also checks that the setting is left as it was found."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert torch.get_float32_matmul_precision() == "medium"
        assert [backend.fp32_precision for backend in MATMUL] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def by_the_setting_of_a_backend() -> Iterator[None]:
    """After it torch cannot tell the common setting any more, and raises if asked."""
    before = [backend.fp32_precision for backend in MATMUL]
    lower = ["tf32", "bf16"]
    for backend, precision in zip(MATMUL, lower, strict=True):
        backend.fp32_precision = precision
    try:
        yield
        assert [backend.fp32_precision for backend in MATMUL] == lower
    finally:
        for backend, precision in zip(MATMUL, before, strict=True):
            backend.fp32_precision = precision


LOWERED: list[Lowered] = [by_the_common_setting, by_the_setting_of_a_backend]
