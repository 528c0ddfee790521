"""Texts of alike length go through a model together, because padding is what short texts spend most of their time on.

Legend: B texts, H features of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FEW = 16


def encode_by_length(encode: Callable[[list[int]], Tensor], lengths: Sequence[int]) -> Tensor:
    """Encode a batch in parts of alike length, and bring the results back into its order.

    Args:
        encode: From b rows of the batch to their features ``(b, H)``; rows must not interact.
        lengths: Tokens of each text, B.

    Returns:
        Features ``(B, H)``.

    Example:
        >>> encode_by_length(lambda rows: torch.tensor([[float(row)] for row in rows]), [3, 90, 2])[:, 0].tolist()
        [0.0, 1.0, 2.0]
    """
    parts = parts_by_length(lengths)
    found = torch.cat([encode(part) for part in parts])  # (B, H)
    places = torch.tensor([row for part in parts for row in part], device=found.device)  # (B,)
    return found.index_select(0, places.argsort())


def parts_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of alike length, each part to be padded to its own longest.

    Args:
        lengths: Tokens of each text, B.

    Returns:
        The rows, longest first. A part ends where the next text has under three quarters of its longest's tokens, but
        not before it has 16 rows.

    Example:
        >>> parts_by_length([2, 40, 3] + 20 * [39])[1]
        [2, 0]
    """
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not parts or (len(parts[-1]) >= FEW and lengths[row] < 0.75 * lengths[parts[-1][0]]):
            parts.append([])
        parts[-1].append(row)
    return parts
