"""Per-step diagnostics for collapse detection.

Shapes: G = samples of the global batch, D = embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion import CriterionOutput, TripletCriterion


class Health(NamedTuple):
    """Diagnostics of one training step, over all processes.

    Attributes:
        loss: Mean loss of the active triplets, ``()``.
        active: Number of triplets with a non-zero loss, int64 ``()``.
        lone: Number of anchors without a positive or without a negative, int64 ``()``.
        anchors: Number of anchors with both, int64 ``()``.
        spread: Root mean square distance of the embeddings from their mean, ``()``.
        size: Root mean square length of the embeddings, ``()``.
    """

    loss: Tensor
    active: Tensor
    lone: Tensor
    anchors: Tensor
    spread: Tensor
    size: Tensor


def health(criterion: TripletCriterion, output: CriterionOutput, embeddings: Tensor) -> Health:
    """Compute the diagnostics of a step.

    Args:
        criterion: The criterion of the step; its reduction is undone.
        output: Loss and census of the step.
        embeddings: Embeddings of all processes, ``(G, D)``.
    """
    loss, census = output.loss.detach(), output.census
    if criterion.reduction == "sum":
        loss = loss / census.active.clamp(min=1)
    elif criterion.reduction == "mean" and census.selected is not None:
        loss = loss * census.selected / census.active.clamp(min=1)
    return Health(loss, census.active, census.lone_anchors, census.anchors, *spread_and_size(embeddings))


def spread_and_size(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Compute spread and size of embeddings ``(G, D)``, as in :class:`Health`; zeros if there are none.

    Example:
        >>> spread_and_size(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        (tensor(1.), tensor(1.))
    """
    rows = embeddings.detach().float()
    if not len(rows):
        return rows.new_zeros(()), rows.new_zeros(())
    centred = rows - rows.mean(dim=0)
    spread, size = (part.square().sum(dim=1).mean().sqrt() for part in (centred, rows))
    return spread, size


def collapsed_loss(loss: str, margin: float) -> float:
    """Compute the loss of a triplet if all embeddings are equal: the margin, or its softplus."""
    return margin if loss == "hinge" else float(torch.nn.functional.softplus(torch.tensor(margin, dtype=torch.float64)))
