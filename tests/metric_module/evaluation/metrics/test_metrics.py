"""Every metric equals its function over all batches, alone and in a group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import UserError
from metric_module.distances import Manhattan
from metric_module.evaluation import (
    ClusteringMetric,
    EmbeddingMetric,
    FewShotMetric,
    IdentificationMetric,
    MetricGroup,
    RetrievalMetric,
    VerificationMetric,
    clustering_metrics,
    few_shot_metrics,
    identification_metrics,
    retrieval_metrics,
    verification_metrics,
)
from tests.helpers.points import cloud

SMALL: dict[str, Any] = {"ways": 3, "shots": (1,), "queries": 2, "episodes": 20, "seed": 4}
OPEN_SET: dict[str, Any] = {"enrolled": 2, "far": (0.2,), "seed": 5}


def fill(metric: EmbeddingMetric, x: Tensor, labels: Tensor, size: int = 17, queries: Tensor | None = None) -> Any:
    """Add samples in random order, with their rows as ids."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    for rows in torch.split(order, size):
        metric.update(x[rows], labels[rows], rows, queries=None if queries is None else queries[rows])
    return metric


def test_each_is_its_function_and_a_group_is_all_of_them() -> None:
    x, labels = cloud()
    cases: list[tuple[EmbeddingMetric, dict[str, float]]] = [
        (RetrievalMetric(recall_at=(2,)), retrieval_metrics(x, labels, recall_at=(2,))),
        (VerificationMetric(far=(0.1,)), verification_metrics(x, labels, far=(0.1,), threshold=2.0)),
        (FewShotMetric(**SMALL), few_shot_metrics(x, labels, **SMALL)),
        (IdentificationMetric(**OPEN_SET), identification_metrics(x, labels, **OPEN_SET)),
        (ClusteringMetric(runs=2, seed=3), clustering_metrics(x, labels, runs=2, seed=3)),
    ]
    together: dict[str, float] = {}
    for metric, expected in cases:
        metric.threshold = 2.0
        assert fill(metric, x, labels).compute() == expected
        assert any(0 < value < 1 for value in expected.values())
        together |= expected
    group = MetricGroup([metric for metric, _ in cases])
    group.threshold = 2.0
    assert fill(group, x, labels).compute() == together
    assert not group.state_dict()


def test_the_distance_is_handed_on() -> None:
    x, labels = cloud()
    metric = VerificationMetric(Manhattan(), far=(0.1,))
    assert fill(metric, x, labels).compute() == verification_metrics(x, labels, distance=Manhattan(), far=(0.1,))
    few = FewShotMetric(Manhattan(), **SMALL)
    assert fill(few, x, labels).compute() == few_shot_metrics(x, labels, distance=Manhattan(), **SMALL)
    named = IdentificationMetric(Manhattan(), **OPEN_SET)
    assert fill(named, x, labels).compute() == identification_metrics(x, labels, distance=Manhattan(), **OPEN_SET)


def test_queries_look_in_the_gallery_of_the_others() -> None:
    x, labels = cloud()
    queries = torch.arange(len(x)) % 3 == 0
    ids = torch.arange(len(x))
    expected = retrieval_metrics(
        x[queries],
        labels[queries],
        ids[queries],
        gallery=x[~queries],
        gallery_labels=labels[~queries],
        gallery_ids=ids[~queries],
    )
    assert expected["recall_at_1"] != retrieval_metrics(x, labels)["recall_at_1"]
    metric = fill(RetrievalMetric(), x, labels, queries=queries)
    assert metric.compute() == expected
    assert torch.equal(metric.gathered().queries, queries)


def pair_rows(labels: Tensor, same: bool) -> list[tuple[int, int]]:
    rows = [(i, j) for j in range(len(labels)) for i in range(j)]
    return [pair for pair in rows if (labels[pair[0]] == labels[pair[1]]) == same and pair[1] > 40]


def test_listed_pairs_count_where_all_samples_are() -> None:
    x, labels = cloud()
    pairs = torch.tensor([*pair_rows(labels, True)[:4], *pair_rows(labels, False)[:4]])
    metric = VerificationMetric()
    metric.pairs, metric.folds = pairs, torch.arange(8) % 2
    figures = fill(metric, x, labels).compute()
    assert figures["same_pairs"] == 4
    assert "accuracy_2_fold" in figures
    metric.reset()
    assert fill(metric, x[:30], labels[:30]).compute() == verification_metrics(x[:30], labels[:30])


def test_mistakes_are_named() -> None:
    x, labels = cloud()
    ids = torch.arange(len(x))
    with pytest.raises(UserError, match="evaluation: expected at least one metric, got none"):
        MetricGroup([])
    with pytest.raises(UserError, match="evaluation: two metrics give map; expected different names"):
        fill(MetricGroup([RetrievalMetric(), RetrievalMetric()]), x, labels).compute()
    with pytest.raises(UserError, match=r"queries: expected a bool tensor of shape \[90\], got \(90,\) torch.int64"):
        RetrievalMetric().update(x, labels, ids, queries=ids)
    metric = RetrievalMetric()
    metric.update(x, labels, ids)
    with pytest.raises(UserError, match=r"queries: .* in every batch or in none, got them given here, not before"):
        metric.update(x, labels, ids, queries=ids > 3)
    with pytest.raises(UserError, match=r"far: expected different rates in \(0, 1\), got \[2\]"):
        VerificationMetric(far=(2,))
    with pytest.raises(UserError, match="ways: expected an integer >= 2, got 1"):
        FewShotMetric(ways=1)
    with pytest.raises(UserError, match="runs: expected an integer >= 1, got 0"):
        ClusteringMetric(runs=0)


def test_figures_that_the_samples_do_not_allow_are_left_out_and_named() -> None:
    x, labels = cloud()
    few = FewShotMetric(**{**SMALL, "shots": (1, 80)})
    group = MetricGroup([RetrievalMetric(), few, VerificationMetric(far=(0.1,))])
    assert fill(group, x, labels).compute().keys() > {"map_at_r", "accuracy_3_way_1_shot", "roc_auc"}
    (line,) = group.left_out
    assert line.startswith("accuracy_3_way_80_shot: few-shot: expected at least 3 classes of more than 80 samples")
    group.reset()
    assert group.left_out == []
    ids = torch.arange(len(x))  # each a class of its own
    assert fill(group, x, ids).compute() == {}
    assert [line.split(":")[0] for line in group.left_out] == [
        "RetrievalMetric",
        "accuracy_3_way_1_shot",
        "accuracy_3_way_80_shot",
        "VerificationMetric",
    ]
    assert group.left_out[-1].endswith("expected pairs of one class and pairs of two, got 0 of one and 4005 of two")


def test_a_part_of_a_metric_is_left_out_alone() -> None:
    x, labels = cloud()
    alone = RetrievalMetric()
    alone.update(x, labels, torch.arange(len(x)), groups=labels)
    assert alone.compute()["map_at_r"] > 0
    (line,) = alone.left_out
    assert line.startswith("cross_group: labels: expected a query with another item of its class in another group")
    group = MetricGroup([ClusteringMetric(), RetrievalMetric()])
    assert fill(group, x, torch.zeros_like(labels)).compute()["map_at_r"] == 1
    assert group.left_out == ["ClusteringMetric: clustering: expected at least 2 classes, got 1"]
