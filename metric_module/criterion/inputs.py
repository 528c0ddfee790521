"""The checked input of the criterion.

Shapes: B = anchors, M = references, D = embedding size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_labels, check_rows
from metric_module.errors import UserError


class MiningInput(NamedTuple):
    """Anchors, the references they are compared with, and the labels, ids or masks that decide about pairs.

    Attributes:
        embeddings: Anchors ``(B, D)``.
        labels: Class of each anchor, int64 ``(B,)``; None if ``positives`` is given.
        reference: References ``(M, D)``; None if the anchors are their own references.
        reference_labels: Class of each reference, int64 ``(M,)``.
        ids: Identity of each anchor, int64 ``(B,)``.
        reference_ids: Identity of each reference, int64 ``(M,)``. Equal ids are never a pair.
        positives: Bool mask ``(B, M)`` that replaces the labels.
        negatives: Bool mask ``(B, M)``; None: every pair that is not positive is negative.
        first: Position of the first anchor in the batch of all processes; None: the anchors are the whole batch.
    """

    embeddings: Tensor
    labels: Tensor | None = None
    reference: Tensor | None = None
    reference_labels: Tensor | None = None
    ids: Tensor | None = None
    reference_ids: Tensor | None = None
    positives: Tensor | None = None
    negatives: Tensor | None = None
    first: int | None = None


def check_input(given: MiningInput) -> MiningInput:
    """Accept input whose fields have the right types and fit together.

    Whether embeddings are finite is found with the loss: :func:`metric_module.criterion.finite.check_loss_is_finite`.

    Args:
        given: The arguments of :meth:`metric_module.TripletCriterion.forward`.

    Returns:
        The same input with labels and ids as int64.

    Raises:
        UserError: If a field has the wrong shape or type, or does not fit another.
    """
    check_rows("embeddings", given.embeddings)
    rows = columns = len(given.embeddings)
    if given.reference is not None:
        check_rows("reference", given.reference, width=given.embeddings.shape[1])
        columns = len(given.reference)
        if given.reference_labels is None and given.positives is None:
            raise UserError("reference_labels: expected integers of shape [M] together with reference, got None")
        if (given.ids is None) != (given.reference_ids is None):
            raise UserError("ids and reference_ids: expected both or neither, got one")
    elif given.reference_labels is not None or given.reference_ids is not None:
        raise UserError("reference_labels and reference_ids go with reference, which is not given")
    if given.labels is None and given.positives is None:
        raise UserError("labels: expected integers of shape [B], or a mask in positives, got neither")
    sizes = {"labels": rows, "reference_labels": columns, "ids": rows, "reference_ids": columns}
    integers: dict[str, Any] = {
        name: check_labels(name, values, size)
        for name, size in sizes.items()
        if (values := getattr(given, name)) is not None
    }
    for name, mask in (("positives", given.positives), ("negatives", given.negatives)):
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != (rows, columns)):
            raise UserError(
                f"{name}: expected a bool mask of shape [{rows}, {columns}], got {mask.dtype} {tuple(mask.shape)}"
            )
    return given._replace(**integers)
