"""Tests of the figures that a set cannot have: the same verdict as computing them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from metric_module import UserError
from metric_module.evaluation import (
    ClusteringMetric,
    EmbeddingMetric,
    FewShotMetric,
    IdentificationMetric,
    InstanceMetric,
    MetricGroup,
    RetrievalMetric,
    VerificationMetric,
)
from metric_module.evaluation.preflight import Labelled, Missing, too_few_classes, without_positives, without_two_kinds

MAKE: list[Callable[[], EmbeddingMetric]] = [
    RetrievalMetric,
    VerificationMetric,
    lambda: FewShotMetric(ways=2, shots=(1, 3), episodes=2),
    lambda: FewShotMetric(ways=3, shots=(2,), episodes=2),
    ClusteringMetric,
    InstanceMetric,
    lambda: IdentificationMetric(far=(0.2, 0.3)),
    lambda: RetrievalMetric(rerank=["k_reciprocal", "query_expansion"]),
]


def computed(metric: EmbeddingMetric, data: Labelled) -> set[str]:
    """Names of the figures that random embeddings of a set get; empty if they cannot be computed."""
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(size=(len(data.ids), 2)))
    metric.pairs, metric.folds = data.pairs, data.folds
    metric.update(embeddings, *data[:4])
    try:
        return set(metric.compute())
    except UserError:
        return set()


def random_set(random: np.random.Generator) -> Labelled:
    """Draw a small set, with groups, queries or listed pairs by chance."""
    count = int(random.integers(1, 14))
    ids = torch.from_numpy(random.permutation(20)[:count])

    def some(most: int) -> Tensor:
        return torch.from_numpy(random.integers(0, most, count))

    groups = some(2) if random.integers(2) else None
    queries = some(2).bool() if random.integers(2) else None
    pairs = ids[torch.from_numpy(random.integers(0, count, (2, 2)))] if random.integers(2) else None
    folds = torch.from_numpy(random.integers(0, 2, 2)) if pairs is not None and random.integers(2) else None
    return Labelled(some(4), ids, groups, queries, pairs, folds)


@pytest.mark.parametrize("place", range(len(MAKE)))
def test_what_is_missing_is_what_cannot_be_computed(place: int) -> None:
    random, seen = np.random.default_rng(place), set()
    for _ in range(60):
        data, metric = random_set(random), MAKE[place]()
        if isinstance(metric, RetrievalMetric):
            data = data._replace(groups=None)  # the figures across groups are in the next test
        missing, names = metric.missing(data), computed(metric, data)
        assert names or missing, data
        assert not [name for name in names for found in missing if found.names(name)], (data, missing)
        seen.add(bool(missing))
    assert seen == {True, False}


def test_figures_across_groups() -> None:
    random, seen = np.random.default_rng(7), set()
    for _ in range(60):
        data = random_set(random)
        groups = torch.zeros_like(data.labels) if data.groups is None else data.groups
        data = data._replace(groups=groups)
        rows = range(len(data.ids))
        asked, found = (
            (torch.ones_like(groups), torch.ones_like(groups))
            if data.queries is None
            else (data.queries, ~data.queries)
        )
        fits = any(
            asked[q] and found[g] and data.labels[q] == data.labels[g] and groups[q] != groups[g]
            for q in rows
            for g in rows
        )
        assert (without_positives(data, across=True) is None) == fits
        seen.add(fits)
    assert seen == {True, False}


@pytest.mark.parametrize("place", range(len(MAKE)))
def test_the_patterns_name_every_figure(place: int) -> None:
    metric = MAKE[place]()
    good = Labelled(torch.arange(16) // 4, torch.arange(16), torch.arange(16) % 2)
    bad = good._replace(labels=torch.zeros(1).long(), ids=torch.tensor([3]), groups=None)
    figures = computed(metric, good)
    patterns = metric.missing(bad) + MAKE[-1]().missing(bad._replace(groups=torch.tensor([0])))
    assert figures and all(any(found.names(name) for found in patterns) for name in figures)


def test_reasons_name_the_numbers_and_the_setting() -> None:
    single = Labelled(torch.arange(3), torch.arange(3), torch.zeros(3).long())
    assert without_positives(single) == "none of 3 queries has another item of its class (datamodule: labels, split)"
    gallery = single._replace(queries=torch.tensor([True, True, False]))
    assert without_positives(gallery, across=True) == (
        "none of 2 queries has another item of its class in another group among 1 items of the gallery "
        "(datamodule: groups)"
    )
    assert without_two_kinds(single) == "each of 3 classes has a single sample (datamodule: labels, split)"
    assert without_two_kinds(single._replace(pairs=torch.tensor([[0, 1]]))) == "all 1 listed pairs are of two classes"
    assert too_few_classes(single, 2, 1) == (
        "0 of 3 classes have more than 1 samples, and an episode takes 2 "
        "(evaluation.few_shot: lower ways=2 or leave 1 out of shots)"
    )
    group = MetricGroup([VerificationMetric(), ClusteringMetric()])
    assert [found.figures[0] for found in group.missing(single)] == ["roc_auc"]
    assert Missing(["accuracy_5_way_1_shot*"], "").names("accuracy_5_way_1_shot_interval")
