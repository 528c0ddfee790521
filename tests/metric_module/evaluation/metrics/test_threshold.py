"""The threshold of a set whose metric is no verification: that of verification, or of a keyed part of a large set."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from metric_module.distances import Cosine, Distance, Euclidean
from metric_module.errors import NotComputableError
from metric_module.evaluation import RetrievalMetric, verification_metrics
from metric_module.evaluation.metrics import threshold
from metric_module.evaluation.metrics.base import Gathered
from metric_module.evaluation.metrics.threshold import best_threshold, keyed_part, with_threshold


def clouds(classes: int, each: int, noise: float = 0.7) -> Gathered:
    """Overlapping clouds, in no order of class; ids are not rows."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(classes).repeat(each) * 5
    rows = torch.randn(classes, 6, generator=generator)[labels // 5]
    rows = rows + noise * torch.randn(len(labels), 6, generator=generator)
    return Gathered(rows, labels, torch.arange(len(labels)) * 3 + 1, None, None)


@pytest.mark.parametrize("distance", [None, Euclidean(), Cosine()])
def test_it_is_that_of_verification(distance: Distance | None) -> None:
    samples = clouds(12, 5)
    expected = verification_metrics(*samples[:3], distance=distance)
    assert 0.5 < expected["balanced_accuracy"] < 1
    assert best_threshold(samples, distance) == expected["best_threshold"]


def test_listed_pairs_count_only_in_a_set_that_has_them() -> None:
    samples = clouds(12, 5)
    pairs = torch.tensor([[1, 37], [1, 4], [7, 43], [7, 13], [10, 46], [10, 4]])
    listed = verification_metrics(*samples[:3], pairs=pairs)["best_threshold"]
    every = verification_metrics(*samples[:3])["best_threshold"]
    assert best_threshold(samples, None, pairs) == listed != every
    assert best_threshold(samples, None, torch.tensor([[1, 37], [1, 2]])) == every


def test_a_small_set_counts_as_a_whole() -> None:
    samples = clouds(300, 32)  # 148,800 pairs of one class
    assert keyed_part(samples.labels, samples.ids).tolist() == list(range(9_600))


@pytest.mark.parametrize(
    ("classes", "each", "most", "kept"),
    [
        (2, 800, 256, 2),  # 512 would be 261,632 pairs; 256 are 65,280
        (10, 400, 128, 10),
        (600, 32, 16, 600),
        (40_000, 2, 2, 30_000),
        (13_000, 5, 5, 12_000),
    ],
)
def test_a_large_set_keeps_classes_and_samples_of_classes(classes: int, each: int, most: int, kept: int) -> None:
    samples = clouds(classes, each)
    rows = keyed_part(samples.labels, samples.ids)
    assert rows.tolist() == sorted(set(rows.tolist()))
    counts = Counter(samples.labels[rows].tolist())
    assert set(counts.values()) == {most} and len(counts) == kept
    assert len(rows) <= threshold.SAMPLES and kept * most * (most - 1) // 2 <= threshold.SAME_PAIRS
    order = torch.randperm(len(samples.ids), generator=torch.Generator().manual_seed(0))
    again = keyed_part(samples.labels[order], samples.ids[order])
    assert set(samples.ids[order][again].tolist()) == set(samples.ids[rows].tolist())


def test_a_part_draws_all_over_the_set() -> None:
    labels, ids = torch.arange(40_000).repeat_interleave(2), torch.arange(80_000)
    kept = labels[keyed_part(labels, ids)].double()
    assert kept.mean() == pytest.approx(20_000, rel=0.02) and kept.std() == pytest.approx(40_000 / 12**0.5, rel=0.02)


def test_the_threshold_of_a_part_is_that_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = clouds(40, 20)
    monkeypatch.setattr(threshold, "SAME_PAIRS", 1000)
    rows = keyed_part(samples.labels, samples.ids)
    assert Counter(samples.labels[rows].tolist()) == dict.fromkeys(range(0, 200, 5), 4)
    part = [one[rows] for one in samples[:3] if isinstance(one, Tensor)]
    expected = verification_metrics(part[0], part[1], part[2])["best_threshold"]
    whole = verification_metrics(*samples[:3])["best_threshold"]
    assert best_threshold(samples) == expected != whole
    assert expected == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize(
    ("labels", "counts"), [([4, 4, 4], "3 of one and 0 of two"), ([1, 2, 3], "0 of one and 3 of two")]
)
def test_a_set_without_two_kinds_of_pairs_has_none(labels: list[int], counts: str) -> None:
    metric = RetrievalMetric(recall_at=(1,))
    metric.update(torch.randn(3, 2), torch.tensor(labels), torch.arange(3))
    assert with_threshold(metric, {"x": 1.0}) == {"x": 1.0}
    line = f"best_threshold: labels: expected pairs of one class and pairs of two, got {counts}"
    assert metric.left_out == [line]
    with pytest.raises(NotComputableError, match=counts):
        best_threshold(metric.gathered())


def test_a_threshold_of_the_metric_stays() -> None:
    metric = RetrievalMetric(recall_at=(1,))
    metric.update(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([4, 4, 5]), torch.arange(3))
    assert with_threshold(metric, {"best_threshold": 7.0}) == {"best_threshold": 7.0}
    assert with_threshold(metric, {"x": 7.0}) == {"x": 7.0, "best_threshold": 1.0}
