"""Compare the retrieval metric's figures after re-ranking with walks along the re-ranked lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from metric_module import UserError
from metric_module.distances import Distance, Manhattan
from metric_module.evaluation import Gathered, RetrievalMetric
from metric_module.evaluation.preflight import Labelled
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud, grid, side
from tests.oracles import reranking, retrieval
from tests.oracles.retrieval import Side

RERANK = {"k_reciprocal": {"k1": 6, "k2": 3}, "query_expansion": {"k": 3, "alpha": 1}}
BOTH = ["k_reciprocal", "query_expansion"]


def filled(rerank: Any, x: Tensor, labels: Tensor, *others: Tensor | None, **settings: Any) -> RetrievalMetric:
    metric = RetrievalMetric(recall_at=(1, 5), rerank=rerank, **settings)
    metric.update(x, labels, torch.arange(len(x)), *others)
    return metric


def walked(distances: NDArray[np.float64], query: Side, items: Side) -> dict[str, float]:
    """Figures of a matrix of distances, equal up to rounding where they tie."""
    rows, columns = (one._replace(x=np.arange(float(len(one.x)))[:, None]) for one in (query, items))
    rounded = distances.round(11)
    found = retrieval.retrieval_figures(rows, columns, lambda q, g: float(rounded[int(q[0]), int(g[0])]), (1, 5))
    return {name: value for name, value in found.items() if "queries" not in name}


def naive(query: Side, items: Side) -> dict[str, float]:
    """Every figure after re-ranking, from the papers and the definition of ranks."""
    measure, square = retrieval.euclidean, lambda one, two: retrieval.euclidean(one, two) ** 2
    changed = query._replace(x=reranking.expand_queries(query, items, measure, **RERANK["query_expansion"]))
    matrices = {
        "k_reciprocal": reranking.k_reciprocal(query, items, measure, square, **RERANK["k_reciprocal"]),
        "query_expansion": np.array([[measure(one, two) for two in items.x] for one in changed.x]),
    }
    figures: dict[str, float] = {}
    for name, matrix in matrices.items():
        for prefix, keep in (("", False), ("cross_group_", True)):
            own, other = (one if keep else one._replace(groups=None) for one in (query, items))
            figures |= {f"{prefix}{figure}_{name}": value for figure, value in walked(matrix, own, other).items()}
    assert all(0 < figures[f"map_{name}"] < 0.95 for name in matrices)
    return figures


@pytest.mark.parametrize("points", [cloud, grid])
@pytest.mark.parametrize("beside", [True, False])
def test_equals_walks_along_lists(points: Any, beside: bool) -> None:
    x, labels = points(rows=70, classes=14, seed=8) if points is cloud else points(rows=70, seed=8)
    x, ids, groups = x.double() + 2, torch.arange(70), torch.arange(70) % 3
    queries = torch.rand(70, generator=torch.Generator().manual_seed(2)) < 0.3 if beside else None
    everything = torch.ones(70).bool()
    asked, found = (everything, everything) if queries is None else (queries, ~queries)
    sides = (side(x[rows], labels[rows], ids[rows], groups[rows]) for rows in (asked, found))
    figures = filled(RERANK, x, labels, groups, queries).compute()
    reranked = {name: value for name, value in figures.items() if any(method in name for method in RERANK)}
    assert reranked == pytest.approx(naive(*sides), rel=1e-12)
    plain = {name: value for name, value in figures.items() if name not in reranked}
    assert plain == filled(None, x, labels, groups, queries).compute(), "bit for bit"


@pytest.mark.parametrize("distance", [None, Manhattan()])
def test_neither_order_nor_blocks_show(distance: Distance | None) -> None:
    (x, labels), groups = grid(rows=60, seed=9), torch.arange(60) % 2
    whole = filled(BOTH, x, labels, groups, distance=distance).compute()
    metric = RetrievalMetric(distance, recall_at=(1, 5), rerank=BOTH)
    for rows in torch.split(torch.randperm(60, generator=torch.Generator().manual_seed(5)), 7):
        metric.update(x[rows], labels[rows], rows, groups[rows])
    with small_blocks(cells=500, queries=5):
        assert metric.compute() == whole


def test_equal_distances_are_misses() -> None:
    figures = filled(BOTH, torch.ones(12, 2), torch.arange(12) % 3).compute()
    assert figures["recall_at_5_k_reciprocal"] == figures["recall_at_5_query_expansion"] == figures["recall_at_5"] == 0


@pytest.mark.parametrize("all_ranks", [True, False])
def test_the_names_are_those_of_the_figures(all_ranks: bool) -> None:
    x, labels = cloud(seed=2)
    metric = filled(BOTH, x, labels, torch.arange(len(x)) % 2, all_ranks=all_ranks)
    figures = metric.compute()
    assert set(metric.figure_names()) == set(figures)
    assert {"map_at_r_k_reciprocal", "cross_group_recall_at_5_query_expansion"} <= figures.keys()
    assert ("map_k_reciprocal" in figures) == all_ranks


def test_a_gallery_that_is_too_large_has_the_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("k_reciprocal", "metrics.retrieval"):
        monkeypatch.setattr(f"metric_module.evaluation.{module}.MOST", 20)
    x, labels = cloud(seed=2)
    metric = filled(BOTH, x, labels)
    figures = metric.compute()
    assert "map_at_r" in figures and "map_at_r_query_expansion" in figures and "map_at_r_k_reciprocal" not in figures
    assert metric.left_out == [
        "k_reciprocal: gallery: expected at most 20 items for k-reciprocal re-ranking, got 90; "
        "its time grows with their square"
    ]
    (found,) = metric.missing(Labelled(labels, torch.arange(90)))
    assert found.names("map_at_r_k_reciprocal") and not found.names("map_at_r")
    assert found.reason == "its gallery has 90 items, and at most 20 can be re-ranked (evaluation.retrieval.rerank)"
    assert not metric.missing(Labelled(labels, torch.arange(90), queries=torch.arange(90) > 15))


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UserError, match=r"evaluation.retrieval.rerank: did you mean 'k_reciprocal'\? .* 'kreciprocal'"):
        RetrievalMetric(rerank="kreciprocal")


def test_figures_of_each_query_are_the_plain_ones() -> None:
    x, labels = cloud(seed=2)
    plain, metric = filled(None, x, labels), filled(BOTH, x, labels)
    assert isinstance(metric.gathered(), Gathered)
    plain.compute(), metric.compute()
    assert plain.per_query is not None and metric.per_query is not None
    assert all(torch.equal(*pair) for pair in zip(plain.per_query, metric.per_query, strict=True))
