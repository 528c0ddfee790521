"""Clustering figures: agreement of clusters with classes."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from metric_module import UserError
from metric_module.distances import Cosine, Manhattan
from metric_module.evaluation import clustering_metrics
from tests.helpers.points import cloud, grid


def test_figures_are_those_of_k_means() -> None:
    x, labels = cloud(classes=8, noise=0.3)
    found = clustering_metrics(x, labels, runs=20)
    assert 0 < found["ami"] < found["nmi"] < 1
    clusters = KMeans(len(set(labels.tolist())), n_init=20, random_state=1).fit_predict(x.double().numpy())
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=0.02)
    assert found["ami"] == pytest.approx(adjusted_mutual_info_score(labels, clusters), abs=0.03)


@pytest.mark.parametrize(("x", "labels"), [cloud(), grid()])
@pytest.mark.parametrize("distance", [None, Cosine()])
def test_the_order_of_rows_does_not_show(x: torch.Tensor, labels: torch.Tensor, distance: Any) -> None:
    found = clustering_metrics(x + 1, labels, distance=distance)
    for seed in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        assert clustering_metrics(x[order] + 1, labels[order], distance=distance) == found


def test_noise_is_worth_nothing_and_cosine_looks_at_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 12
    assert abs(clustering_metrics(torch.randn(120, 5, generator=generator), labels)["ami"]) < 0.1
    rays = torch.nn.functional.one_hot(labels).float() * torch.rand(120, 1, generator=generator)
    assert clustering_metrics(rays, labels, distance=Cosine(), runs=5)["ami"] > 0.9
    assert clustering_metrics(rays * 0, labels) == {"nmi": 0.0, "ami": 0.0}


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = cloud()
    with pytest.raises(UserError, match="runs: expected an integer >= 1, got 0"):
        clustering_metrics(x, labels, runs=0)
    with pytest.raises(
        UserError, match=r"clustering: expected a distance that follows from the Euclidean one, .* got Manhattan"
    ):
        clustering_metrics(x, labels, distance=Manhattan())
    with pytest.raises(UserError, match="clustering: expected at least 2 classes, got 1"):
        clustering_metrics(x, labels * 0)
    inner = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name)
        return inner(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        UserError, match=r"clustering: needs scikit-learn; pip install 'lightning-triplets\[clustering\]"
    ):
        clustering_metrics(x, labels)
