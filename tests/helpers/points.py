"""Points to retrieve, and their figures by the oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.oracles import retrieval as oracle
from tests.oracles.retrieval import Measure, Side, retrieval_figures

FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "r_precision", "map_at_r", "map", "mrr")


def cloud(
    rows: int = 90, width: int = 6, classes: int = 22, seed: int = 0, noise: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Clusters that overlap, of uneven sizes, some of one item: every figure lies strictly between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = (classes * torch.rand(rows, generator=generator).pow(1.5)).long()
    labels[-2:] = torch.tensor([classes + 5, classes + 9])
    centres = torch.randn(classes + 10, width, generator=generator)
    return centres[labels] + noise * torch.randn(rows, width, generator=generator), labels


def grid(rows: int = 90, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points with small integer coordinates: ties and duplicates everywhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 12, (rows,), generator=generator)
    corner = labels[:, None] * torch.tensor([1, 2, 3]) % 7  # (rows, 3)
    return (corner + torch.randint(0, 4, (rows, 3), generator=generator)).float(), labels


def near_ties(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Far from the origin and close together: float32 products alone order these by their rounding."""
    x, labels = cloud(rows=100, width=64, seed=seed, noise=4)
    return 100 + 1e-3 * x + torch.tensor([0.0, 300.0])[torch.arange(100) % 2, None], labels


def side(x: Tensor, labels: Tensor, ids: Tensor | None = None, groups: Tensor | None = None) -> Side:
    return Side(
        x.double().numpy(),
        labels.tolist(),
        None if ids is None else ids.tolist(),
        None if groups is None else groups.tolist(),
    )


def expect(
    x: Tensor, labels: Tensor, groups: Tensor | None = None, distance: Measure = oracle.euclidean
) -> dict[str, float]:
    """The oracle's figures where the queries are their own gallery, checked to be worth comparing with."""
    own = side(x, labels, torch.arange(len(x)), groups)
    figures = retrieval_figures(own, own, distance)
    assert all(0 < figures[name] < 1 for name in FIGURES)
    return figures


def check_same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert list(got) == list(expected)
    assert got == pytest.approx(expected, rel=1e-12, abs=0)
