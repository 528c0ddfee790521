"""Compare the instance figures with scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from metric_module import UserError
from metric_module.distances import Cosine
from metric_module.evaluation import InstanceMetric, adjusted_rand_index, instance_metrics


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 2)), min_size=1, max_size=30))
def test_the_index_is_that_of_a_peer(pairs: list[tuple[int, int]]) -> None:
    truth, found = (np.array(part) for part in zip(*pairs, strict=True))
    assert adjusted_rand_index(truth, found) == pytest.approx(adjusted_rand_score(truth, found), abs=1e-12)


def scenes(noise: float = 0.35) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw five groups of two to four instances of nine samples; the groups share their instance centres."""
    generator = torch.Generator().manual_seed(3)
    group = torch.tensor([0] * 2 + [1] * 4 + [2] * 3 + [3] * 2 + [4] * 3).repeat_interleave(9)
    labels = torch.arange(14).repeat_interleave(9)
    centres = torch.randn(4, 6, generator=generator)[labels % 4]
    rows = torch.nn.functional.normalize(centres + noise * torch.randn(len(labels), 6, generator=generator))
    order = torch.randperm(len(labels), generator=generator)
    return rows[order], labels[order], group[order]


def reference(threshold: float, metric: str) -> float:
    rows, labels, groups = scenes()
    found = []
    for group in range(5):
        mine = groups == group
        peer = AgglomerativeClustering(None, metric=metric, linkage="average", distance_threshold=threshold)
        found.append(adjusted_rand_score(labels[mine], peer.fit_predict(rows[mine].double().numpy())))
    return float(np.mean(found))


def test_clusters_are_those_of_a_peer() -> None:
    rows, labels, groups = scenes()
    for threshold in (0.3, 0.7, 1.0):
        found = instance_metrics(rows, labels, groups=groups, threshold=threshold)
        assert found == {"ari": pytest.approx(reference(threshold, "euclidean")), "groups": 5.0}
    assert 0.1 < reference(0.7, "euclidean") < 0.95
    found = instance_metrics(rows, labels, groups=groups, threshold=0.3, distance=Cosine())
    assert found["ari"] == pytest.approx(reference(0.3, "cosine"))


def test_the_best_threshold_is_returned_and_applied() -> None:
    rows, labels, groups = scenes()
    best = instance_metrics(rows, labels, groups=groups)
    others = [instance_metrics(rows, labels, groups=groups, threshold=height)["ari"] for height in (0.3, 0.6, 1.2, 1.4)]
    assert best["ari"] > max(others) > min(others)
    assert best["ari"] == pytest.approx(reference(best["best_threshold"], "euclidean"))
    assert best["ari"] > 0.6


def test_a_metric_collects_applies_and_does_not_see_the_order() -> None:
    rows, labels, groups = scenes()
    figures = []
    for order in (torch.arange(len(labels)), torch.randperm(len(labels))):
        metric = InstanceMetric()
        for part in torch.split(order, 50):
            metric.update(rows[part], labels[part], part, groups[part])
        figures.append(metric.compute())
    assert figures[0] == figures[1] == instance_metrics(rows, labels, groups=groups)
    metric.threshold = 0.5
    assert metric.figures(metric.gathered()) == instance_metrics(rows, labels, groups=groups, threshold=0.5)


def test_groups_of_one_sample_are_right() -> None:
    assert instance_metrics(torch.randn(3, 2), torch.arange(3), groups=torch.arange(3))["ari"] == 1.0


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = InstanceMetric()
    metric.update(torch.ones(2, 2), torch.arange(2), torch.arange(2))
    with pytest.raises(UserError, match="instances: expected samples with groups, got none"):
        metric.compute()
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(UserError, match="instances: expected at least one sample, got none"):
        instance_metrics(torch.ones(0, 2), none, groups=none)
    monkeypatch.setitem(sys.modules, "scipy.cluster", None)
    monkeypatch.delitem(sys.modules, "scipy.cluster.hierarchy", raising=False)
    with pytest.raises(
        UserError, match=r"instances: needs scikit-learn; pip install 'lightning-triplets\[clustering\]'"
    ):
        instance_metrics(torch.ones(2, 2), torch.arange(2), groups=torch.zeros(2).long())
