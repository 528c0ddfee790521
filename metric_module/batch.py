"""Batches that a data loader passes to :class:`metric_module.TripletModule`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_labels
from metric_module.errors import UserError


class Batch(NamedTuple):
    """One batch of labelled samples.

    Attributes:
        inputs: Inputs of the encoder, first dimension ``B`` (usually a tensor ``(B, ...)``, or a list of texts).
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
    index: Tensor  # type: ignore[assignment]  # the field hides tuple.index


class PairBatch(NamedTuple):
    """Pair supervision: which references belong to which query (users and items, captions and images).

    The queries are the anchors, and every positive and negative is a reference. With several processes the masks have a
    column for each reference of the **global** batch, in order of rank; with ``module.gather=false``, only for those of
    their own process.

    Attributes:
        query: Inputs of the queries, first dimension ``B``.
        reference: Inputs of the references, first dimension ``M``; they may be of another kind than the queries if the
            encoder supports both (:class:`metric_module.encoders.MultiEncoder`).
        positives: Bool mask ``(B, G)``, true where a reference belongs to a query. G is M on one process.
        index: Identity of each query in its data set, int64 ``(B,)``.
        negatives: Bool mask ``(B, G)``, true where a reference is a negative of a query. A pair in neither mask is
            ignored, and a pair in both is positive. None: every pair that is not positive is negative.

    Example:
        >>> import torch
        >>> likes = torch.tensor([[True, False], [False, True]])
        >>> users, items = torch.tensor([4, 7]), torch.tensor([1, 2])
        >>> batch = PairBatch({"user": users}, {"item": items}, likes, index=users)
        >>> batch.negatives is None
        True
    """

    query: Any
    reference: Any
    positives: Tensor
    index: Tensor  # type: ignore[assignment]  # the field hides tuple.index
    negatives: Tensor | None = None


def check_pair_batch(batch: PairBatch) -> PairBatch:
    """Accept masks and ids that fit together.

    Args:
        batch: A batch from a data loader.

    Returns:
        The batch with int64 ids.

    Raises:
        UserError: If a mask is not bool ``(B, G)``, the masks differ in shape, or the ids are not integers ``(B,)``.
    """
    masks = {"positives": batch.positives} | ({} if batch.negatives is None else {"negatives": batch.negatives})
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.dtype != torch.bool:
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise UserError(f"{name}: expected a bool mask of shape [B, G], got {got}")
    if batch.negatives is not None and batch.negatives.shape != batch.positives.shape:
        shapes = f"{list(batch.positives.shape)}, got {list(batch.negatives.shape)}"
        raise UserError(f"negatives: expected the shape of positives, {shapes}")
    return batch._replace(index=check_labels("index", batch.index, len(batch.positives)))


def is_texts(inputs: Any) -> bool:
    """Whether inputs are a non-empty list or tuple of ``str``, as opposed to a structure of tensors.

    Example:
        >>> is_texts(["a", "b"]), is_texts(["inputs", torch.tensor([4])])
        (True, False)
    """
    return isinstance(inputs, tuple | list) and len(inputs) > 0 and all(isinstance(text, str) for text in inputs)


def unpack(batch: Any, first: int = 0) -> Batch:
    """Convert a batch of any loader to :class:`Batch`; without ids, number the samples.

    Args:
        batch: :class:`Batch`, ``(inputs, labels)`` or ``(inputs, labels, index)``.
        first: Number of the first sample.

    Raises:
        UserError: If the batch has another form, or its labels or ids are not integers ``(B,)``.

    Example:
        >>> unpack(["inputs", torch.tensor([4, 4])], first=8).index
        tensor([8, 9])
    """
    if not isinstance(batch, tuple | list) or len(batch) not in {2, 3}:
        raise UserError(f"batch: expected (inputs, labels) or (inputs, labels, index), got {type(batch).__name__}")
    inputs, labels = batch[0], batch[1]
    if not isinstance(labels, Tensor):
        item = f" of {type(labels[0]).__name__}" if isinstance(labels, list | tuple) and labels else ""
        got = f"{type(labels).__name__}{item}"
        raise UserError(f"labels: expected a tensor of integers, got {got}; let the data set give each class a number")
    labels = check_labels("labels", labels, len(labels) if labels.ndim else -1)
    if len(batch) == 3:
        return Batch(inputs, labels, check_labels("index", batch[2], len(labels)))
    return Batch(inputs, labels, torch.arange(first, first + len(labels), device=labels.device))
