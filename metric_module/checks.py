"""Checks of embeddings and labels that a user provides, each with one clear message."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.functional import nonfinite_rows


def check_embeddings(name: str, embeddings: Tensor, width: int | None = None) -> None:
    """Accept finite floating point rows ``(N, D)``.

    Args:
        name: Name of the argument, for the message.
        embeddings: Rows ``(N, D)``.
        width: Required D; None: any.

    Raises:
        UserError: If the shape or the type is wrong, or a value is NaN or infinite.
    """
    check_rows(name, embeddings, width)
    check_finite(name, embeddings)


def check_rows(name: str, embeddings: Tensor, width: int | None = None) -> None:
    """Accept floating point rows ``(N, D)``, whatever their values; see :func:`check_embeddings`."""
    expected = f"[N, {'D' if width is None else width}]"
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or width not in {None, embeddings.shape[1]}:
        got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise UserError(f"{name}: expected a tensor of shape {expected}, got {got}")
    if not embeddings.is_floating_point():
        raise UserError(f"{name}: expected floating point numbers, got {embeddings.dtype}")


def check_finite(name: str, embeddings: Tensor) -> None:
    """Accept finite rows ``(N, D)``; see :func:`check_embeddings`. The host waits for the device."""
    bad = nonfinite_rows(embeddings.detach())
    if len(bad):
        raise UserError(
            f"{name}: expected finite numbers, got NaN or infinity in {len(bad)} of {len(embeddings)} rows "
            f"(first rows: {bad[:5].tolist()})"
        )


def check_count(name: str, value: object) -> None:
    """Accept an integer of 1 or more.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        UserError: If it is something else.
    """
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name}: expected an integer of 1 or more, got {value!r}")


def check_labels(name: str, labels: Tensor, rows: int) -> Tensor:
    """Accept integers of shape ``(N,)`` and return them as int64.

    Args:
        name: Name of the argument, for the message.
        labels: Integers of any type.
        rows: Required N.

    Raises:
        UserError: If the shape or the type is wrong.
    """
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
    if not isinstance(labels, Tensor) or labels.ndim != 1 or len(labels) != rows:
        raise UserError(f"{name}: expected a tensor of shape [{rows}], one integer per embedding, got {shape}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"{name}: expected integers, got {labels.dtype}")
    return labels.long()
