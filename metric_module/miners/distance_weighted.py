"""Distance weighted sampling of negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance, Euclidean
from metric_module.errors import UserError
from metric_module.miners.base import PaddedMiner, PaddedTriplets, Uniform
from metric_module.miners.positives import Candidates

_UNIT = 1e-3
"""Largest difference from 1 of the length of a unit vector in float32 or float64."""
_NEVER = 1e30  # subtracted from the logarithm of a weight, to make the weight zero


class DistanceWeighted(PaddedMiner):
    """One negative per positive pair, drawn with probability inverse to the density of its distance.

    Points spread evenly on the unit sphere lie at distance ``d`` with density
    ``q(d) ~ d^(D-2) (1 - d^2/4)^((D-3)/2)`` (Wu et al. 2017, equation 4). A negative is drawn with probability
    proportional to ``1 / q(max(d, cutoff))`` (section 3.1), and never from beyond ``nonzero_loss_cutoff``, where it
    would hardly ever violate a margin. An anchor without a negative within that distance contributes nothing.

    Args:
        cutoff: Smaller distances count as this one, which bounds the weight of the hardest negatives, in (0, 2).
        nonzero_loss_cutoff: Negatives at this distance or farther are not drawn, in (cutoff, 2].

    Raises:
        UserError: If a cut-off is out of range; in use, if the distance is not :class:`Euclidean`, or an embedding is
            not a unit vector or has fewer than 3 dimensions, as the density holds for no others.
    """

    def __init__(self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4) -> None:
        super().__init__()
        if not 0 < cutoff < nonzero_loss_cutoff <= 2:
            raise UserError(
                "distance weighted: expected 0 < cutoff < nonzero_loss_cutoff <= 2, got "
                f"cutoff={cutoff}, nonzero_loss_cutoff={nonzero_loss_cutoff}"
            )
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff
        self._dimension = 0

    @override
    def check(self, distance: Distance, embeddings: Tensor) -> None:
        """Accept only unit vectors under Euclidean distance."""
        if not isinstance(distance, Euclidean):
            raise UserError(
                f"distance weighted: expected Euclidean distance, got {type(distance).__name__}; "
                "use distance=euclidean or another miner"
            )
        self._dimension = embeddings.shape[1]
        if self._dimension < 3:
            raise UserError(f"distance weighted: expected embeddings of at least 3 dimensions, got {self._dimension}")
        if len(embeddings) == 0:
            return
        norm = torch.linalg.vector_norm(embeddings, dim=1)  # (M,)
        worst: float = max(torch.stack([norm.amin(), norm.amax()]).tolist(), key=lambda length: abs(length - 1))
        if abs(worst - 1) > _UNIT and abs(worst - 1) > _rounding(embeddings[(norm - 1).abs() > _UNIT]):
            raise UserError(
                f"distance weighted: expected unit vectors, got one of length {worst:.4g}; "
                "normalize the embeddings or use another miner"
            )

    @override
    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Draw one negative for every positive pair whose anchor has a negative below the cut-off."""
        column, valid, _ = block.slots
        weight = self._weight(block)  # (A, M)
        cumulative = weight.cumsum(dim=1)  # (A, M)
        total = cumulative[:, -1:]  # (A, 1)
        # Draws are numbered along each row, so that an anchor's draws do not depend on which block it is in.
        draw = uniform(column.shape[1]).to(total) * total  # (A, K)
        index = torch.searchsorted(cumulative, draw, right=True).clamp_(max=weight.shape[1] - 1)  # (A, K)
        # Rounding may put a draw on a reference without a weight: use the most probable negative instead.
        missed = weight.gather(1, index) == 0  # (A, K)
        chosen = torch.where(missed, weight.argmax(dim=1, keepdim=True), index)  # (A, K)
        return PaddedTriplets(column, chosen, valid & (total > 0))

    def _weight(self, block: Candidates) -> Tensor:
        """Unnormalised probabilities ``(A, M)``, with a maximum of 1 in each row, computed in logarithms."""
        clamped = block.distances.clamp(min=self.cutoff, max=2 - 1e-4)  # (A, M)
        # What is not a negative lies beyond every cut-off.
        too_far = torch.ge(block.values, self.nonzero_loss_cutoff, out=torch.empty_like(clamped))  # (A, M)
        logit = clamped.log().mul_(2 - self._dimension)  # (A, M)
        rest = clamped.square_().div_(-4).add_(1).log_()  # (A, M), log(1 - d^2 / 4)
        logit.add_(rest, alpha=(3 - self._dimension) / 2).sub_(too_far, alpha=_NEVER)
        peak = logit.amax(dim=1, keepdim=True)  # (A, 1)
        return logit.sub_(peak).exp_().mul_(peak > -_NEVER / 2)


def _rounding(rows: Tensor) -> float:
    """Bound the difference from 1 of the length of unit vectors that were normalised in half precision.

    The norm and each quotient are rounded by at most half of the machine epsilon; twice that leaves room for a norm
    computed in steps. The type is read off the numbers, because rows of an encoder in half precision come in float32
    from the memory and from evaluation.

    Args:
        rows: Floating point ``(n, D)``.

    Returns:
        The bound for the type of the fewest digits that holds all rows exactly.
    """
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(rows.to(dtype).to(rows.dtype), rows):
            return 2 * torch.finfo(dtype).eps
    return _UNIT
