"""What tells a step that learns from one that does not.

Shapes: G = samples of the global batch, D = embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion import CriterionOutput, TripletCriterion


class Health(NamedTuple):
    """Signs of one training step, over all processes.

    Attributes:
        loss: Mean loss of the triplets that had one, ``()``.
        active: How many triplets had one, int64 ``()``.
        lone: How many anchors had no positive or no negative, int64 ``()``.
        anchors: How many had both, int64 ``()``.
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
    """Signs of a step.

    Args:
        criterion: Whose step it was.
        output: What it gave.
        embeddings: Those of all processes, ``(G, D)``.
    """
    loss, census = output.loss.detach(), output.census
    if criterion.reduction == "sum":
        loss = loss / census.active.clamp(min=1)
    elif criterion.reduction == "mean" and census.selected is not None:
        loss = loss * census.selected / census.active.clamp(min=1)
    return Health(loss, census.active, census.lone_anchors, census.anchors, *spread_and_size(embeddings))


def spread_and_size(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Spread and size of embeddings ``(G, D)``, as in :class:`Health`; zeros if there are none.

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
    """The loss of each triplet when all embeddings are one: the margin, or its softplus."""
    return margin if loss == "hinge" else float(torch.nn.functional.softplus(torch.tensor(margin, dtype=torch.float64)))
