"""Distances that overflow, or are NaN, are an error, whatever the miner does with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.distances import SNR, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.miners import All, BatchHard, Random, Semihard

LABELS = torch.arange(24) % 4
ROWS = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))


class OneNaN(Distance):
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        distances = torch.cdist(query, reference)
        return distances.index_put((torch.tensor(2), torch.tensor(7)), torch.tensor(torch.nan))


@pytest.mark.parametrize("loss", ["hinge", "soft"])
@pytest.mark.parametrize("miner", [All, Semihard, BatchHard, Random])
@pytest.mark.parametrize(
    ("distance", "scale"), [(SquaredEuclidean, 1e19), (Euclidean, 1e19), (DotProduct, 1e19), (SNR, 1e19), (OneNaN, 1)]
)
def test_what_cannot_be_summed_is_refused(distance: Any, scale: float, miner: Any, loss: str) -> None:
    criterion = TripletCriterion(distance(), miner(), 0.2, loss)
    message = (
        rf"{distance.__name__}: distances are NaN, or too large to add; the longest embedding has length [\d.e+]+:"
    )
    with pytest.raises(UserError, match=message):
        criterion((scale * ROWS).requires_grad_(), LABELS)


@pytest.mark.parametrize("distance", [SquaredEuclidean, Euclidean, DotProduct])
def test_large_distances_are_no_error(distance: Any) -> None:
    for kind, scale in ((torch.float32, 1e16), (torch.float64, 1e100)):
        rows = (scale * ROWS.to(kind)).requires_grad_()
        loss = TripletCriterion(distance(), All(), 0.2)(rows, LABELS).loss
        loss.backward()
        assert loss.isfinite() and loss > scale / 10
        assert rows.grad is not None and rows.grad.isfinite().all()


def test_embeddings_that_only_add_up_to_infinity_are_no_error() -> None:
    rows = 1e36 * ROWS.abs().repeat(4, 1)
    assert rows.isfinite().all() and rows.sum() == torch.inf
    assert TripletCriterion(Manhattan(), BatchHard(), 0.2)(rows, LABELS.repeat(4)).loss > 1e36


def test_no_anchors_are_no_error() -> None:
    output = TripletCriterion(Euclidean(), All(), 0.2)(torch.zeros(0, 8), LABELS[:0])
    assert output.loss == 0
