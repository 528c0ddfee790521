"""Tests of Market-1501's protocol: junk is ignored, distractors are misses, the query's own camera is ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import PublishedDataModule
from datamodules.published import Market
from metric_module.evaluation import FewShotMetric, MetricGroup, RetrievalMetric, VerificationMetric
from tests.helpers import published_trees
from tests.oracles.reranking import k_reciprocal
from tests.oracles.retrieval import Side, euclidean


def embedding(path: str) -> NDArray[np.float32]:
    """Embed a box like an imperfect encoder: the person, plus some of the camera and noise."""
    name = Path(path).name
    person, camera = np.random.default_rng(int(name[:4])), np.random.default_rng(100 + int(name.split("_c")[1][0]))
    chance = np.random.default_rng(list(name.encode()))
    parts = person.normal(size=4) + 0.8 * camera.normal(size=4) + 0.6 * chance.normal(size=4)
    return parts.astype(np.float32)


def naive(root: Path, reranked: bool = False) -> tuple[float, dict[int, float]]:
    """Compute mean average precision and the cumulative matching curve from file names alone."""
    gallery = [item for item in sorted((root / "bounding_box_test").glob("*.jpg")) if not item.name.startswith("-1")]
    queries = sorted((root / "query").glob("*.jpg"))
    own, other = (
        Side(np.stack([embedding(str(path)) for path in paths]).astype(float), [], None, None)
        for paths in (queries, gallery)
    )
    if reranked:
        distances = k_reciprocal(own, other, euclidean, lambda one, two: euclidean(one, two) ** 2)
    else:
        distances = np.array([[euclidean(one, two) for two in other.x] for one in own.x])
    precisions, hits = [], {1: [], 5: []}  # type: ignore[var-annotated]
    for query, row in zip(queries, distances, strict=True):
        person, camera = query.name[:4], query.name.split("_c")[1][0]
        ranked = sorted(
            (distance, item.name)
            for distance, item in zip(row, gallery, strict=True)
            if not (item.name[:4] == person and item.name.split("_c")[1][0] == camera)
        )
        right = [name[:4] == person for _, name in ranked]
        found = np.flatnonzero(right)
        precisions.append(np.mean([(place + 1) / (rank + 1) for place, rank in enumerate(found)]))
        for k in hits:
            hits[k].append(found[0] < k)
    return float(np.mean(precisions)), {k: float(np.mean(values)) for k, values in hits.items()}


@pytest.fixture
def data(tmp_path: Path) -> PublishedDataModule:
    published_trees.market(tmp_path / "market")
    found = PublishedDataModule(root=str(tmp_path / "market"), read=Market(), official=False, val_fraction=0.4)
    assert isinstance(found.samples.queries, Tensor) and isinstance(found.samples.groups, Tensor)
    return found


def evaluated(data: PublishedDataModule, split: str) -> dict[str, float]:
    samples, ids = data.samples, data.samples.splits[split]
    metric = MetricGroup([RetrievalMetric(recall_at=(1, 5), rerank="k_reciprocal"), VerificationMetric()])
    paths = [samples.fetch.paths[int(row)] for row in ids]  # type: ignore[attr-defined]
    embeddings = torch.from_numpy(np.stack([embedding(path) for path in paths]))
    assert samples.groups is not None and samples.queries is not None
    metric.update(embeddings, samples.labels[ids], ids, samples.groups[ids], samples.queries[ids])
    found: dict[str, float] = metric.compute()
    return found


def test_the_figures_are_those_of_the_protocol(data: PublishedDataModule) -> None:
    figures = evaluated(data, "test")
    mean, hits = naive(Path(data.root))
    assert figures["cross_group_map"] == pytest.approx(mean, abs=1e-6)
    assert 0.3 < mean < 0.95, "not degenerate"
    assert {k: figures[f"cross_group_recall_at_{k}"] for k in hits} == pytest.approx(hits)
    assert 0 < hits[1] < 1
    assert figures["map"] != pytest.approx(mean, abs=1e-3), "the camera matters"
    assert figures["queries"] == 11
    assert figures["same_pairs"] == sum(n * (n - 1) // 2 for n in (12, 12, 8, 12)), "distractors are no person"


def test_the_figures_after_re_ranking_are_those_of_the_protocol(data: PublishedDataModule) -> None:
    figures = evaluated(data, "test")
    mean, hits = naive(Path(data.root), reranked=True)
    assert mean != pytest.approx(figures["cross_group_map"], abs=1e-3), "it changes the order"
    assert 0.3 < mean < 0.95, "not degenerate"
    assert figures["cross_group_map_k_reciprocal"] == pytest.approx(mean, abs=1e-6)
    assert {k: figures[f"cross_group_recall_at_{k}_k_reciprocal"] for k in hits} == pytest.approx(hits)


def test_what_is_read(data: PublishedDataModule) -> None:
    samples, test = data.samples, data.samples.splits["test"]
    assert samples.groups is not None and samples.queries is not None
    names = [Path(samples.fetch.paths[int(row)]).name for row in test]  # type: ignore[attr-defined]
    assert not any(name.startswith("-1") for name in names)
    assert sum(name.startswith("0000") for name in names) == 7
    assert [int(name.split("_c")[1][0]) for name in names] == samples.groups[test].tolist()
    assert samples.queries[test].sum() == 11
    few = FewShotMetric(ways=4, shots=(1,), episodes=5)
    few.update(torch.randn(len(test), 3), samples.labels[test], test)
    assert few.compute()["accuracy_4_way_1_shot"] > 0, "four people have enough boxes, and no distractor is one"


def test_validation_has_a_query_of_each_person_and_camera(data: PublishedDataModule) -> None:
    samples, val = data.samples, data.samples.splits["val"]
    assert samples.queries is not None and samples.groups is not None
    assert samples.queries[val].tolist() == [True, False] * 6
    assert samples.groups[val].tolist() == [1, 1, 2, 2, 3, 3] * 2
    figures = evaluated(data, "val")
    assert (figures["queries"], figures["cross_group_queries_without_positive"]) == (6, 0)
