"""Separation of classes over a whole set: distances of pairs, and shares of easy, semi-hard and hard triplets.

Shapes: N = samples, A = anchors in a block, K = most positives of an anchor, M = margins, H = bins, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.exact.counting import count_at_least
from metric_module.evaluation.exact.matches import nearest_first
from metric_module.evaluation.inputs import check_items
from metric_module.functional import full_precision

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_FINE = 64  # subdivisions of a bin, for the quantiles
_CELLS = 1 << 22


class Separation(NamedTuple):
    """Distances of all pairs (anchor, other sample), and the shares of all triplets at each margin.

    Attributes:
        edges: Ends of the bins, ``(H + 1,)`` float64.
        positive: Pairs of one class in each bin, int64 ``(H,)``; the first and last bin include what is outside.
        negative: Pairs of two classes in each bin, int64 ``(H,)``.
        positive_quantiles: :data:`QUANTILES` of d_ap, ``(7,)``, to 1/64 of a bin.
        negative_quantiles: :data:`QUANTILES` of d_an, ``(7,)``, to 1/64 of a bin.
        margins: The margins ``(M,)``, float64.
        easy: Share of triplets with d_an > d_ap + margin, ``(M,)`` float64.
        semihard: Share with d_ap < d_an <= d_ap + margin, ``(M,)``.
        hard: Share with d_an <= d_ap, ``(M,)``; equal for every margin.
        triplets: Number of triplets, int64 ``()``.
    """

    edges: Tensor
    positive: Tensor
    negative: Tensor
    positive_quantiles: Tensor
    negative_quantiles: Tensor
    margins: Tensor
    easy: Tensor
    semihard: Tensor
    hard: Tensor
    triplets: Tensor


def separation(
    embeddings: Tensor,
    labels: Tensor,
    margins: Sequence[float],
    *,
    distance: Distance | None = None,
    bins: int = 100,
    anchors: Tensor | None = None,
) -> Separation:
    """Measure all pairs and all triplets of a set.

    Memory is that of a block of anchors; the distances of all pairs are computed twice, in float64.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        margins: The margins, M of them, each at least 0.
        distance: The distance; None is Euclidean.
        bins: Number of bins, H.
        anchors: Rows that serve as anchors, int64; None is all.

    Raises:
        UserError: If a shape, type or number is wrong, or no anchor has a positive and a negative.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [1.5], [4.0]])
        >>> found = separation(points, torch.tensor([7, 7, 8, 8]), [0.5, 2.0])
        >>> int(found.triplets), found.easy.tolist(), found.semihard.tolist(), found.hard.tolist()
        (8, [0.375, 0.125], [0.25, 0.5], [0.375, 0.375])
    """
    if bins < 1 or not margins or min(margins) < 0:
        raise UserError(f"separation: expected margins >= 0 and bins >= 1, got {list(margins)} and {bins}")
    samples = check_items(embeddings, labels, None, None)
    device = samples.embeddings.device
    rows = torch.arange(len(samples.labels), device=device) if anchors is None else anchors.to(device)
    with torch.no_grad(), full_precision(device.type):
        blocks = _AnchorBlocks(samples.embeddings.double(), samples.labels, rows, len(margins), distance)
        edges = blocks.edges(bins)
        shifts = torch.tensor([0.0, *margins], dtype=torch.float64, device=device)  # (M + 1,)
        fine = torch.zeros(2, bins * _FINE, dtype=torch.int64, device=device)
        within = torch.zeros(len(shifts), dtype=torch.int64, device=device)  # (M + 1,)
        total = 0
        for block, positive, negative in blocks:
            for row, wanted in zip(fine, (positive, negative), strict=True):
                row += _histogram(block[wanted], edges, bins * _FINE)
            limit = nearest_first(block, positive)  # (A, K)
            real = torch.isfinite(limit)  # (A, K)
            reach = (limit[:, :, None] + shifts).masked_fill(~real[:, :, None], -torch.inf)  # (A, K, M + 1)
            far = block.masked_fill(~negative, torch.inf)  # (A, N)
            within += count_at_least(-far, -reach.flatten(1)).view_as(reach).sum(dim=(0, 1))
            total += int((real.sum(dim=1) * negative.sum(dim=1)).sum())
    if total == 0:
        raise UserError("labels: expected an anchor with a sample of its class and one of another, got none")
    share = within.double() / total  # (M + 1,)
    coarse = fine.view(2, bins, _FINE).sum(dim=2)  # (2, H)
    quantiles = [_quantiles(row, edges) for row in fine]
    hard = share[:1].expand(len(margins)).clone()
    shares = (1 - share[1:], share[1:] - hard, hard)
    parts = (edges, *coarse, *quantiles, shifts[1:], *shares, torch.tensor(total))
    return Separation(*(part.cpu() for part in parts))


class _AnchorBlocks:
    """Distances of the anchors to all samples, block by block."""

    def __init__(self, rows: Tensor, labels: Tensor, anchors: Tensor, margins: int, distance: Distance | None) -> None:
        self._rows, self._labels, self._anchors = rows, labels, anchors
        self._measure: Callable[[Tensor, Tensor], Tensor] = exact_distance(distance, rows.device)
        largest = int(torch.unique(labels, return_counts=True)[1].max()) if len(labels) else 1
        self._size = max(1, _CELLS // max(1, len(rows), largest * (margins + 1)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield distances, and masks of the positives and of the negatives, each ``(A, N)``."""
        place = torch.arange(len(self._rows), device=self._rows.device)
        for anchors in torch.split(self._anchors, self._size):
            same = self._labels[anchors, None] == self._labels  # (A, N)
            yield self._measure(self._rows[anchors], self._rows), same & (anchors[:, None] != place), ~same

    def edges(self, bins: int) -> Tensor:
        """Choose the ends of bins that hold every distance, ``(H + 1,)``."""
        low, high = torch.inf, 0.0
        for block, positive, negative in self:
            wanted = block[positive | negative]
            if len(wanted):
                low, high = min(low, float(wanted.min())), max(high, float(wanted.max()))
        return torch.linspace(min(low, 0.0), max(high, 1e-12), bins + 1, dtype=torch.float64, device=self._rows.device)


def _histogram(values: Tensor, edges: Tensor, bins: int) -> Tensor:
    """Count the values in each of ``bins`` bins of equal width, int64 ``(bins,)``."""
    low, high = edges[0], edges[-1]
    place = ((values - low) / (high - low) * bins).long().clamp(0, bins - 1)
    return place.bincount(minlength=bins)


def _quantiles(counts: Tensor, edges: Tensor) -> Tensor:
    """Estimate the quantiles ``(7,)`` of distances that were counted in fine bins."""
    total = counts.cumsum(0)
    wanted = torch.tensor(QUANTILES, dtype=torch.float64, device=counts.device) * total[-1]
    place = torch.searchsorted(total.double(), wanted)
    return edges[0] + (place + 0.5) * (edges[-1] - edges[0]) / len(counts)
