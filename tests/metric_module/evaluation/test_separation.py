"""Compare distances of pairs and shares of triplets with loops over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metric_module import UserError
from metric_module.distances import Cosine, Euclidean, Manhattan
from metric_module.evaluation import separation
from metric_module.evaluation.separation import QUANTILES
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud, grid, side
from tests.oracles import retrieval as oracle
from tests.oracles.verification import judge, triplet_shares

MARGINS = [0.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("distance", "measure"), [(None, oracle.euclidean), (Cosine(), oracle.cosine), (Manhattan(), oracle.manhattan)]
)
def test_shares_are_those_of_a_triple_loop(distance: Any, measure: Any) -> None:
    x, labels = cloud(rows=40, classes=9)
    found = separation(x, labels, MARGINS, distance=distance)
    expected = triplet_shares(side(x, labels), MARGINS, measure)
    for name, shares in expected.items():
        assert getattr(found, name).tolist() == pytest.approx(shares, abs=1e-12)
    assert 0 < expected["hard"][0] < 1
    assert 0 < expected["semihard"][1] < expected["semihard"][2]
    pairs = judge(side(x, labels), measure)
    assert found.positive.sum() == 2 * len(pairs.same)
    assert found.negative.sum() == 2 * len(pairs.different)
    counts, _ = np.histogram([d for d in pairs.same for _ in range(2)], found.edges.numpy())
    assert found.positive.tolist() == pytest.approx(counts, abs=2)
    width = float(found.edges[1] - found.edges[0])
    for got, distances in ((found.positive_quantiles, pairs.same), (found.negative_quantiles, pairs.different)):
        exact = np.quantile(np.repeat(distances, 2), QUANTILES, method="inverted_cdf")
        assert got.tolist() == pytest.approx(exact, abs=width / 32)


def test_ties_are_hard() -> None:
    x, labels = grid(rows=40)
    found = separation(x, labels, [1.0])
    assert found.hard.tolist() == pytest.approx(triplet_shares(side(x, labels), [1.0])["hard"])
    constant = separation(x * 0, labels, [1.0])
    assert constant.hard.tolist() == [1.0]


def test_blocks_do_not_show_and_anchors_can_be_chosen() -> None:
    x, labels = cloud()
    whole = separation(x, labels, MARGINS, bins=10)
    halves = [separation(x, labels, MARGINS, bins=10, anchors=rows) for rows in torch.split(torch.arange(90), 45)]
    assert int(whole.triplets) == sum(int(half.triplets) for half in halves)
    weighted = [half.hard[0] * half.triplets for half in halves]
    assert float(whole.hard[0]) == pytest.approx(float(sum(weighted) / whole.triplets))
    with small_blocks(cells=1000):
        found = separation(x, labels, MARGINS, bins=10, distance=Euclidean())
    for got, want in zip(found, whole, strict=True):
        assert torch.allclose(got.double(), want.double(), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margins": []}, r"separation: expected margins >= 0 and bins >= 1, got \[\] and 100"),
        ({"margins": [-1.0]}, r"separation: expected margins >= 0 and bins >= 1, got \[-1.0\] and 100"),
        ({"bins": 0}, r"separation: expected margins >= 0 and bins >= 1, got \[0.1\] and 0"),
        ({"labels": torch.arange(90)}, "expected an anchor with a sample of its class and one of another, got none"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    x, labels = cloud()
    with pytest.raises(UserError, match=message):
        separation(**{"embeddings": x, "labels": labels, "margins": [0.1], **arguments})
