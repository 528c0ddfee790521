"""Compare retrieval figures with sorted lists and with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from metric_module.distances import SNR, Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.evaluation import retrieval_metrics
from tests.helpers.blocks import small_blocks
from tests.helpers.points import check_same, cloud, expect, grid, side
from tests.oracles import retrieval as oracle
from tests.oracles.retrieval import Measure, retrieval_figures


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("points", [cloud, grid])
@pytest.mark.parametrize("many", [2, 24])
def test_equals_sorted_lists(points: Callable[..., tuple[Tensor, Tensor]], many: int, seed: int) -> None:
    x, labels = points(seed=seed)
    assert labels.bincount().max() < 24
    with small_blocks(positives=many):
        check_same(retrieval_metrics(x, labels), expect(x, labels))


@pytest.mark.parametrize(
    ("distance", "measure"),
    [
        (Euclidean(), oracle.euclidean),
        (SquaredEuclidean(), oracle.euclidean),
        (Cosine(), oracle.cosine),
        (Manhattan(), oracle.manhattan),
        (DotProduct(), oracle.dot_product),
        (SNR(), oracle.snr),
    ],
)
def test_equals_sorted_lists_under_every_distance(distance: Distance, measure: Measure) -> None:
    x, labels = cloud(seed=5)
    check_same(retrieval_metrics(x, labels, distance=distance), expect(x, labels, distance=measure))


@pytest.mark.parametrize("distance", [Manhattan(), DotProduct()])
def test_ties_are_misses_under_a_custom_distance(distance: Distance) -> None:
    x, labels = grid(seed=1)
    measure = {Manhattan: oracle.manhattan, DotProduct: oracle.dot_product}[type(distance)]
    check_same(retrieval_metrics(x, labels, distance=distance), expect(x, labels, distance=measure))


def test_a_custom_distance_may_learn_and_works_in_float64() -> None:
    class Scaled(Distance):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))

        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            assert query.dtype == self.weight.dtype == torch.float64
            return torch.cdist(query * self.weight, reference * self.weight)

    x, labels = cloud(seed=2)
    distance = Scaled()
    check_same(retrieval_metrics(x, labels, distance=distance), expect(x * distance.weight.detach(), labels))
    assert distance.weight.dtype == torch.float32
    assert distance.weight.grad is None


def test_a_subclass_of_euclidean_is_asked_itself() -> None:
    class Backwards(Euclidean):
        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            return -super().forward(query, reference)

    x, labels = cloud(seed=2)
    own = side(x, labels, torch.arange(len(x)))
    expected = retrieval_figures(own, own, lambda query, item: -oracle.euclidean(query, item))
    assert 0 < expected["map"] < 1
    check_same(retrieval_metrics(x, labels, distance=Backwards()), expected)


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("with_groups", [True, False])
def test_query_and_gallery_differ(with_ids: bool, with_groups: bool) -> None:
    (x, labels), generator = grid(seed=3), torch.Generator().manual_seed(30)
    groups = torch.randint(0, 3, (90,), generator=generator)
    ids = torch.randperm(90, generator=generator) * 2**54
    a, b = torch.arange(40), torch.arange(25, 90)
    kwargs: dict[str, Tensor] = {}
    if with_ids:
        kwargs |= {"ids": ids[a], "gallery_ids": ids[b]}
    if with_groups:
        kwargs |= {"groups": groups[a], "gallery_groups": groups[b]}
    expected = retrieval_figures(
        side(x[a], labels[a], kwargs.get("ids"), kwargs.get("groups")),
        side(x[b], labels[b], kwargs.get("gallery_ids"), kwargs.get("gallery_groups")),
    )
    assert 0 < expected["map_at_r"] < expected["mrr"] < 1
    check_same(retrieval_metrics(x[a], labels[a], gallery=x[b], gallery_labels=labels[b], **kwargs), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [cloud, grid])
def test_groups_are_ignored_within_a_class(points: Callable[..., tuple[Tensor, Tensor]]) -> None:
    x, labels = points(seed=7)
    groups = torch.arange(len(x)) % 3 - 1
    expected = expect(x, labels, groups)
    assert expected != expect(x, labels)
    check_same(retrieval_metrics(x, labels, groups=groups), expected)


def test_self_is_left_out_by_id_not_by_distance() -> None:
    x, labels = torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])
    x[2:] = 5
    figures = retrieval_metrics(x, labels)
    assert figures["recall_at_1"] == figures["map_at_r"] == figures["mrr"] == 1
    assert figures["queries"] == 4


def test_queries_without_a_positive_are_left_out_and_counted() -> None:
    x, labels = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([4, 5, 4, 6])
    figures = retrieval_metrics(x, labels, recall_at=(1, 2, 3))
    assert figures["queries"] == figures["queries_without_positive"] == 2
    assert [figures[f"recall_at_{k}"] for k in (1, 2, 3)] == [0, 0.5, 1]


def test_labels_stay_int64() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [30.0], [31.0]])
    labels = torch.tensor([2**53, 2**53 + 1, 2**53, 2**53 + 1, -1, -(2**62), -1, -(2**62)])
    figures = retrieval_metrics(x, labels)
    assert figures["recall_at_1"] == 0
    check_same(figures, retrieval_figures(side(x, labels, torch.arange(8)), side(x, labels, torch.arange(8))))
    assert figures == retrieval_metrics(x, torch.tensor([0, 1, 0, 1, 2, 3, 2, 3], dtype=torch.uint8))


def test_scikit_learn_agrees() -> None:
    x, labels = cloud(rows=120, seed=13)
    kept = labels.bincount()[labels] > 1
    x, labels = x[kept], labels[kept]
    figures = retrieval_metrics(x, labels)
    precisions, matrix = [], torch.cdist(x.double(), x.double()).numpy()
    for row in range(len(x)):
        others = np.arange(len(x)) != row
        precisions.append(average_precision_score((labels == labels[row]).numpy()[others], -matrix[row, others]))
    assert figures["map"] == pytest.approx(np.mean(precisions), rel=1e-12)
    neighbours = NearestNeighbors(n_neighbors=10).fit(x.double().numpy()).kneighbors(return_distance=False)
    hits = labels.numpy()[neighbours] == labels.numpy()[:, None]
    for k in (1, 5, 10):
        assert figures[f"recall_at_{k}"] == pytest.approx(hits[:, :k].any(axis=1).mean(), rel=1e-12)
    assert 0 < figures["recall_at_1"] < figures["recall_at_10"] < 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_invariants(data: st.DataObject) -> None:
    rows = data.draw(st.integers(3, 14))
    x = torch.tensor(data.draw(st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=rows, max_size=rows))).float()
    labels = torch.tensor([0, 0, *data.draw(st.lists(st.integers(-3, 3), min_size=rows - 2, max_size=rows - 2))])
    figures = retrieval_metrics(x, labels, recall_at=(1, 2, 5, 20))
    ids = torch.arange(rows)
    check_same(figures, retrieval_figures(side(x, labels, ids), side(x, labels, ids), recall_at=(1, 2, 5, 20)))
    assert figures["recall_at_1"] <= figures["recall_at_2"] <= figures["recall_at_5"] <= figures["recall_at_20"] == 1
    assert 0 <= figures["map_at_r"] <= figures["r_precision"] <= 1
    assert figures["map_at_r"] <= figures["map"] <= 1
    assert figures["recall_at_1"] <= figures["mrr"] <= 1
    assert figures["queries"] + figures["queries_without_positive"] == rows
    moved = retrieval_metrics(4 * x + torch.tensor([8.0, -16.0]), labels * 2**40 - 1, recall_at=(1, 2, 5, 20))
    assert moved == figures


def test_a_large_gallery_with_few_classes() -> None:
    x, labels = cloud(rows=700, classes=2, seed=14)
    own = side(x, labels, torch.arange(700))
    rows = torch.arange(0, 700, 23)
    query = side(x[rows], labels[rows], rows)
    expected = retrieval_figures(query, own)
    assert 0 < expected["map_at_r"] < expected["mrr"] < 1
    got = retrieval_metrics(
        x[rows], labels[rows], rows, gallery=x, gallery_labels=labels, gallery_ids=torch.arange(700)
    )
    check_same(got, expected)


@pytest.mark.parametrize("points", [cloud, grid])
@pytest.mark.parametrize("recall_at", [(1,), (1, 5, 30), (50,)])
def test_what_looks_no_further_than_r_is_the_same_without_all_ranks(
    points: Callable[..., tuple[Tensor, Tensor]], recall_at: tuple[int, ...]
) -> None:
    for seed in range(4):
        x, labels = points(rows=300, seed=seed)
        expected = retrieval_metrics(x, labels, recall_at=recall_at)
        with small_blocks(tile=256):
            found = retrieval_metrics(x, labels, recall_at=recall_at, all_ranks=False)
        assert found == {name: value for name, value in expected.items() if name not in {"map", "mrr"}}
        assert 0 < found["map_at_r"] < 1
    custom = retrieval_metrics(x, labels, distance=Manhattan(), all_ranks=False)
    assert custom["map_at_r"] == retrieval_metrics(x, labels, distance=Manhattan())["map_at_r"]
