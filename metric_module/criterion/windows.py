"""Edges of the windows of a window miner.

Shapes: A = anchors in the block, K = largest number of positives of an anchor in the block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.functional import window_limit
from metric_module.miners import WindowMiner


class Window(NamedTuple):
    """Edges of the window of each positive, ``(A, K)``, ``-inf`` in empty slots; None: unbounded on this side."""

    low: Tensor | None
    high: Tensor | None


def window_of(miner: WindowMiner, d_ap: Tensor, margin: float, *, filled: bool) -> Window:
    """Ask the miner for its window.

    Args:
        miner: Defines the window of each positive.
        d_ap: Distance of each positive, ``(A, K)``; ``-inf`` in empty slots.
        margin: In units of the distance.
        filled: Whether no slot is empty.

    Raises:
        UserError: If an edge of the window has the wrong shape.
    """
    low, high = miner.window(d_ap, margin)
    return Window(_edge(low, d_ap, -math.inf, filled), _edge(high, d_ap, math.inf, filled))


def within_reach(window: Window) -> Window:
    """Bound the edges, so that no reference that is not a negative lies below one."""
    return Window(*(None if edge is None else edge.clamp(max=window_limit(edge.dtype)) for edge in window))


def active_window(window: Window, target: Tensor) -> tuple[Tensor | None, Tensor]:
    """Narrow a window to the triplets with a hinge loss above 0; it may be empty, but never ``low > high``.

    Args:
        window: Edges of the window.
        target: ``d_ap + margin``, ``(A, K)``.
    """
    upper = torch.nextafter(target, torch.full_like(target, -math.inf))  # the largest d_an with a loss above 0
    if window.high is not None:
        upper = torch.minimum(upper, window.high)
    return window.low, upper if window.low is None else torch.maximum(upper, window.low)


def _edge(edge: Tensor | float, d_ap: Tensor, open_end: float, filled: bool) -> Tensor | None:
    """Expand an edge of the window to ``(A, K)``, with ``-inf`` in empty slots; None if this side is unbounded.

    Args:
        edge: The miner's edge: one number, or a tensor that broadcasts to ``(A, K)``.
        d_ap: Distance of each positive, ``(A, K)``.
        open_end: The infinity by which a miner says that the window has no edge on this side.
        filled: Whether no slot is empty.

    Raises:
        UserError: If the edge does not broadcast to ``(A, K)``.
    """
    if isinstance(edge, float | int) and edge == open_end:
        return None
    edges = torch.as_tensor(edge, dtype=d_ap.dtype, device=d_ap.device)
    try:
        edges = edges if edges.shape == d_ap.shape else edges.expand_as(d_ap)
    except RuntimeError:
        raise UserError(
            f"window: expected edges that broadcast to [A, K] = {list(d_ap.shape)}, got shape {list(edges.shape)}"
        ) from None
    return edges if filled else torch.where(d_ap == -math.inf, d_ap, edges)
