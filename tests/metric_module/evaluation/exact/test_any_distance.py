"""A user's distance with a Euclidean form takes the fast path and gives the figures of the slow one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metric_module.distances import Distance, EuclideanForm
from metric_module.evaluation import (
    clustering_metrics,
    few_shot_metrics,
    identification_metrics,
    instance_metrics,
    pair_retrieval_metrics,
    retrieval_metrics,
    separation,
    verification_metrics,
)
from metric_module.relations import Links
from tests.helpers.points import cloud


class Mahalanobis(Distance):
    """Twice the squared distance after a learned linear map; counts the calls of ``forward``."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        Mahalanobis.calls += 1
        return 2 * torch.cdist(query @ self.factor.T, reference @ self.factor.T).square()


class WithForm(Mahalanobis):
    def euclidean_form(self) -> EuclideanForm:
        assert self.factor.dtype == torch.float64
        return EuclideanForm(squared=True, factor=2.0, rows=lambda rows: rows @ self.factor.T)


def relation(x: Tensor, labels: Tensor, distance: Distance) -> dict[str, float]:
    row, column = (labels[:40, None] == labels[40:]).nonzero().unbind(1)
    return pair_retrieval_metrics(x[:40], x[40:], Links.of(row, column, 40), distance=distance)


def shares(x: Tensor, labels: Tensor, distance: Distance) -> dict[str, float]:
    found = separation(x, labels, [0.5], distance=distance)
    return {"hard": float(found.hard), "semihard": float(found.semihard)}


EVALUATIONS: dict[str, Callable[[Tensor, Tensor, Distance], dict[str, float]]] = {
    "retrieval": lambda x, labels, distance: retrieval_metrics(x, labels, distance=distance),
    "relation": relation,
    "verification": lambda x, labels, distance: verification_metrics(x, labels, distance=distance, threshold=30.0),
    "few-shot": lambda x, labels, distance: few_shot_metrics(x, labels, distance=distance, ways=3, shots=(1,)),
    "identification": lambda x, labels, distance: identification_metrics(x, labels, distance=distance, far=(0.2,)),
    "instances": lambda x, labels, distance: instance_metrics(x, labels, groups=labels // 4, distance=distance),
    "separation": shares,
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_fast_path_gives_the_figures_of_the_slow_one(name: str) -> None:
    x, labels = cloud(seed=5)
    Mahalanobis.calls = 0
    fast = EVALUATIONS[name](x, labels, WithForm())
    assert Mahalanobis.calls == 0
    assert fast == pytest.approx(EVALUATIONS[name](x, labels, Mahalanobis()), rel=1e-6)
    assert Mahalanobis.calls > 0
    assert any(0 < value < 1 for value in fast.values())


def test_clusters_of_mapped_rows() -> None:
    x, labels = cloud(classes=8, noise=0.3)
    distance = WithForm()
    mapped = x.double() @ distance.factor.detach().double().T
    assert clustering_metrics(x, labels, distance=distance) == clustering_metrics(mapped, labels)
    assert clustering_metrics(x, labels, distance=distance) != clustering_metrics(x, labels)


def test_the_thresholds_are_in_the_units_of_the_distance() -> None:
    x, labels = cloud()
    found = verification_metrics(x, labels, distance=WithForm())
    again = verification_metrics(x, labels, distance=WithForm(), threshold=found["best_threshold"])
    assert again["balanced_accuracy_at_threshold"] == found["balanced_accuracy"]
    assert found["best_threshold"] > 0
