"""What a data loader hands to :class:`metric_module.TripletModule`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_labels
from metric_module.errors import UserError


class Batch(NamedTuple):
    """One batch of labelled samples.

    Attributes:
        inputs: Whatever the encoder takes, first dimension ``B`` (usually a tensor ``(B, ...)``).
        labels: Class of each sample, int64 ``(B,)``.
        index: Identity of each sample in its data set, int64 ``(B,)``. Equal ids are the same sample.

    Example:
        >>> import torch
        >>> batch = Batch(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([5, 9]))
        >>> batch.labels.tolist()
        [0, 1]
    """

    inputs: Any
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # the field's name hides tuple.index, which no one needs here


class PairBatch(NamedTuple):
    """Pair supervision: which references belong to which query (users and items, captions and images).

    Attributes:
        query: Inputs of the queries, first dimension ``B``.
        reference: Inputs of the references, first dimension ``M``.
        positives: Bool mask ``(B, M)``, true where a reference belongs to a query.
        index: Identity of each query in its data set, int64 ``(B,)``.
    """

    query: Any
    reference: Any
    positives: Tensor
    index: Tensor  # type: ignore[assignment]  # the field's name hides tuple.index, which no one needs here


def unpack(batch: Any, first: int = 0) -> Batch:
    """Bring what a loader gave into the form of :class:`Batch`; without ids, number the samples as they come.

    Args:
        batch: :class:`Batch`, or ``(inputs, labels)`` or ``(inputs, labels, index)`` from any loader.
        first: The first number.

    Raises:
        UserError: If the batch has another form, or its labels or ids are no integers ``(B,)``.

    Example:
        >>> unpack(["inputs", torch.tensor([4, 4])], first=8).index
        tensor([8, 9])
    """
    if not isinstance(batch, tuple | list) or len(batch) not in {2, 3}:
        raise UserError(f"batch: expected (inputs, labels) or (inputs, labels, index), got {type(batch).__name__}")
    inputs, labels = batch[0], batch[1]
    labels = check_labels("labels", labels, len(labels) if isinstance(labels, Tensor) and labels.ndim else -1)
    if len(batch) == 3:
        return Batch(inputs, labels, check_labels("index", batch[2], len(labels)))
    return Batch(inputs, labels, torch.arange(first, first + len(labels), device=labels.device))
