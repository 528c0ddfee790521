"""Loss of single triplets.

Shapes: T = triplets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid

from metric_module.errors import UserError

LOSSES = ("hinge", "soft")


class LossSettings(NamedTuple):
    """What is summed and counted in every block of a batch.

    Attributes:
        margin: In units of the distance.
        loss: ``"hinge"`` or ``"soft"``.
        census: Whether to count the triplets of each category.
        counted: Whether to count the triplets of a window, which may cost a pass.
    """

    margin: float
    loss: str
    census: bool
    counted: bool


def triplet_loss(d_ap: Tensor, d_an: Tensor, margin: float, loss: str = "hinge") -> Tensor:
    """Compute the loss of each triplet from its two distances.

    ``hinge``: ``max(0, d_ap - d_an + margin)`` (Schroff et al. 2015, equation 3). ``soft``:
    ``softplus(d_ap - d_an + margin)`` (Hermans et al. 2017, section 3, with margin 0).

    Args:
        d_ap: Anchor to positive, ``(T,)``.
        d_an: Anchor to negative, ``(T,)``.
        margin: In units of the distance; above 0 for hinge, 0 or more for soft.
        loss: ``"hinge"`` or ``"soft"``.

    Returns:
        Losses ``(T,)``, each 0 or more.

    Raises:
        UserError: If ``loss`` or ``margin`` is not allowed.

    Example:
        >>> import torch
        >>> triplet_loss(torch.tensor([0.5, 0.5]), torch.tensor([0.6, 0.9]), margin=0.2)
        tensor([0.1000, 0.0000])
    """
    check_loss(loss, margin)
    excess = (d_ap + margin) - d_an  # (T,)
    return excess.clamp(min=0) if loss == "hinge" else -logsigmoid(-excess)


def check_loss(loss: str, margin: float) -> None:
    """Reject an unknown loss, or a margin that the loss does not allow.

    Args:
        loss: ``"hinge"`` or ``"soft"``.
        margin: In units of the distance.

    Raises:
        UserError: If one of them is not allowed.
    """
    if loss not in LOSSES:
        raise UserError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise UserError(f"margin: expected a finite number, got {margin!r}")
    if margin < 0 or (loss == "hinge" and margin == 0):
        allowed = "> 0" if loss == "hinge" else ">= 0"
        raise UserError(f"margin: expected a number {allowed} for the {loss} loss, got {margin}")
