"""Windows that are made up of whole categories of triplets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.miners import All, Easy, Hard, Semihard, WindowMiner
from tests.helpers.batches import embed


class Wider(Semihard):
    """Overrides the window alone."""

    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        return d_ap, d_ap + 2 * margin


@pytest.mark.parametrize("miner", [All, Easy, Semihard, Hard, Wider])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_the_census_does_not_change_the_selection(miner: type[WindowMiner], loss: str) -> None:
    embeddings, labels = embed(30), torch.arange(30) // 5
    counts = [
        TripletCriterion(Euclidean(), miner(), 0.5, loss, "mean", census=census)(embeddings, labels).census.selected
        for census in (False, True)
    ]
    assert counts[0] is not None and counts[0] == counts[1] > 100


def test_a_window_does_not_inherit_the_categories_of_another() -> None:
    assert Semihard.categories == frozenset({"semihard"})
    assert Wider.categories is None
