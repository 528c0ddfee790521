"""Wording that messages share: shortened lists, numbers of rows, and reasons of exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metric_module.errors import printable

SHOWN = 20
LISTED = 1000


def shortened(items: Sequence[object], most: int = SHOWN) -> str:
    """Join the first items by commas, with control characters as escapes, and count the rest.

    Args:
        items: What to list.
        most: How many items to spell out.

    Example:
        >>> shortened([3, 1, 2], most=2)
        '3, 1 and 1 more'
    """
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(printable(str(item)) for item in items[:most]) + more


def listed(title: str, names: Sequence[str]) -> list[str]:
    """Write a line that counts and lists names, or none without names; it lists the first thousand.

    Args:
        title: What the names have in common.
        names: The names.

    Example:
        >>> listed("files cannot be read", ["a.png", "b.png"])
        ['2 files cannot be read: a.png, b.png']
    """
    return [f"{len(names)} {title}: {shortened(names, LISTED)}"] if names else []


def rows_in_words(rows: npt.NDArray[np.integer[Any]] | Tensor) -> str:
    """Count row numbers and list the first twenty: ``2 rows (from 0): 4, 7``."""
    return f"{len(rows):,} rows (from 0): {shortened(rows.tolist())}"


def reason_of(error: Exception) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    return printable(str(error).splitlines()[0]) if str(error) else type(error).__name__
