"""What a data loader hands to :class:`metric_module.TripletModule`."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


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
