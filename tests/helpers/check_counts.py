"""Counts of the checks that a piece of code makes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from metric_module import checks, functional


@contextmanager
def replaced(function: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Put another function in a function's place, in every module that imported it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("metric_module") and vars(module).get(function.__name__) is function:
                patch.setattr(module, function.__name__, other)
        yield


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the checks of labels by argument, and the scans for values that are not finite by number of rows."""
    counts: Counter[str] = Counter()
    check_labels, nonfinite_rows = checks.check_labels, functional.nonfinite_rows

    def check(name: str, labels: Tensor, rows: int) -> Tensor:
        counts[name] += 1
        return check_labels(name, labels, rows)

    def scan(values: Tensor) -> Tensor:
        counts[f"scan of {len(values)} rows"] += 1
        return nonfinite_rows(values)

    with replaced(check_labels, check), replaced(nonfinite_rows, scan):
        yield counts
