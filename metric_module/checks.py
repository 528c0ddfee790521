"""Checks of what a user hands to the criterion, each with one clear message."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.functional import nonfinite_rows


def check_embeddings(name: str, embeddings: Tensor, width: int | None = None) -> None:
    """Accept finite floating point rows ``(N, D)``.

    Args:
        name: What to call them in the message.
        embeddings: The rows.
        width: D, if it is known.

    Raises:
        UserError: If they are anything else.
    """
    expected = f"[N, {'D' if width is None else width}]"
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or width not in {None, embeddings.shape[1]}:
        got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise UserError(f"{name}: expected a tensor of shape {expected}, got {got}")
    if not embeddings.is_floating_point():
        raise UserError(f"{name}: expected floating point numbers, got {embeddings.dtype}")
    bad = nonfinite_rows(embeddings.detach())
    if len(bad):
        raise UserError(
            f"{name}: expected finite numbers, got NaN or infinity in {len(bad)} of {len(embeddings)} rows "
            f"(first rows: {bad[:5].tolist()})"
        )


def check_labels(name: str, labels: Tensor, rows: int) -> Tensor:
    """Accept integers of shape ``(N,)`` and return them as int64.

    Raises:
        UserError: If they are anything else.
    """
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
    if not isinstance(labels, Tensor) or labels.ndim != 1 or len(labels) != rows:
        raise UserError(f"{name}: expected a tensor of shape [{rows}], one integer per embedding, got {shape}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"{name}: expected integers, got {labels.dtype}")
    return labels.long()


def check_ids(ids: Tensor | None, reference_ids: Tensor | None, rows: int, columns: int, own: bool) -> None:
    """Accept no ids, or ids of anchors and references together.

    Raises:
        UserError: If one is missing, or has the wrong shape or type.
    """
    if ids is not None:
        check_labels("ids", ids, rows)
    if reference_ids is not None:
        check_labels("reference_ids", reference_ids, columns)
    if not own and (ids is None) != (reference_ids is None):
        raise UserError("ids and reference_ids: expected both or neither, got one")


def check_masks(positives: Tensor | None, negatives: Tensor | None, rows: int, columns: int) -> None:
    """Accept bool masks of shape ``(B, M)``.

    Raises:
        UserError: If one has another shape or type.
    """
    for name, mask in (("positives", positives), ("negatives", negatives)):
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != (rows, columns)):
            raise UserError(
                f"{name}: expected a bool mask of shape [{rows}, {columns}], got {mask.dtype} {tuple(mask.shape)}"
            )
