"""Compare re-ranking with loops over sets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import UserError
from metric_module.distances import SNR, Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.evaluation import expand_queries, k_reciprocal_distances
from metric_module.evaluation.rerank_methods import rerank_methods
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud, grid, side
from tests.oracles import reranking, retrieval
from tests.oracles.retrieval import Measure, Row


def squared(query: Row, item: Row) -> float:
    return float(((query - item) ** 2).sum())


def rounded(measure: Measure) -> Measure:
    """As a distance without a Euclidean form is rounded, so that equal pairs tie."""
    return lambda query, item: float(torch.tensor(measure(query, item)).float())


SETTINGS: list[dict[str, Any]] = [{}, {"k1": 5, "k2": 2}, {"k1": 7, "k2": 1, "weight": 0.5}, {"k1": 70, "k2": 3}]


def expected(query: tuple[Tensor, Tensor | None], items: tuple[Tensor, Tensor | None], **numbers: Any) -> Tensor:
    own, other = (side(x, torch.zeros(len(x)).long(), ids) for x, ids in (query, items))
    found = torch.from_numpy(reranking.k_reciprocal(own, other, retrieval.euclidean, squared, **numbers))
    jaccard_only = torch.from_numpy(
        reranking.k_reciprocal(own, other, retrieval.euclidean, squared, **{**numbers, "weight": 0.0})
    )
    assert (jaccard_only < 0.999).double().mean() > 0.05
    assert (jaccard_only > 0.001).double().mean() > 0.5
    return found


@pytest.mark.parametrize("numbers", SETTINGS)
@pytest.mark.parametrize("points", [cloud, grid])
def test_a_gallery_of_its_own_equals_loops_over_sets(points: Any, numbers: dict[str, Any]) -> None:
    x = points(rows=44, seed=3)[0].double()
    ids = torch.arange(44)
    found = k_reciprocal_distances(x, **numbers)
    torch.testing.assert_close(found, expected((x, ids), (x, ids), **numbers), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("numbers", SETTINGS)
@pytest.mark.parametrize("points", [cloud, grid])
@pytest.mark.parametrize("with_ids", [True, False])
def test_queries_beside_a_gallery_equal_loops_over_sets(points: Any, numbers: dict[str, Any], with_ids: bool) -> None:
    x, generator = points(rows=56, seed=4)[0].double(), torch.Generator().manual_seed(1)
    ids = torch.randperm(56, generator=generator) * 2**40
    query, items = torch.arange(16), torch.arange(6, 56)  # ten are on both sides
    names: dict[str, Any] = {"ids": ids[query], "gallery_ids": ids[items]} if with_ids else {}
    found = k_reciprocal_distances(x[query], x[items], **names, **numbers)
    want = expected((x[query], names.get("ids")), (x[items], names.get("gallery_ids")), **numbers)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("distance", "measure", "original"),
    [
        (Euclidean(), retrieval.euclidean, squared),
        (SquaredEuclidean(), squared, squared),
        (Cosine(), retrieval.cosine, retrieval.cosine),
        (Manhattan(), rounded(retrieval.manhattan), retrieval.manhattan),
        (DotProduct(), rounded(retrieval.dot_product), retrieval.dot_product),
        (SNR(), rounded(retrieval.snr), retrieval.snr),
    ],
)
def test_every_distance(distance: Distance, measure: Measure, original: Measure) -> None:
    x = cloud(rows=40, seed=5)[0].double()
    for query, items in ((x[:10], x[10:]), (x, x)):
        ids = (torch.arange(40), torch.arange(40)) if query is x else (None, None)
        own, other = (
            side(rows, torch.zeros(len(rows)).long(), names) for rows, names in zip((query, items), ids, strict=True)
        )
        want = reranking.k_reciprocal(own, other, measure, original, k1=6, k2=3)
        found = k_reciprocal_distances(query, items, *ids, k1=6, k2=3, distance=distance)
        torch.testing.assert_close(found, torch.from_numpy(want), rtol=1e-9, atol=1e-9)
        want = reranking.expand_queries(own, other, measure, k=4)
        found = expand_queries(query, items, *ids, k=4, distance=distance)
        torch.testing.assert_close(found, torch.from_numpy(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_expanded_queries_equal_loops(k: int, alpha: float) -> None:
    x, _ = grid(rows=60, seed=2)
    x = x.double() - 3
    ids = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    for own, items in ((x, x), (x[:20], x[10:])):
        names = (ids[: len(own)], ids[60 - len(items) :])
        asked, other = (
            side(rows, torch.zeros(len(rows)).long(), of) for rows, of in zip((own, items), names, strict=True)
        )
        want = torch.from_numpy(reranking.expand_queries(asked, other, retrieval.euclidean, k=k, alpha=alpha))
        assert not torch.allclose(want, own, atol=0.1)
        found = expand_queries(own, items, *names, k=k, alpha=alpha)
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(expand_queries(x, ids=ids, k=k, alpha=alpha), expand_queries(x, x, ids, ids, k=k, alpha=alpha))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_small_set(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 9))
    points = st.lists(st.tuples(*[st.integers(-1, 2)] * 2), min_size=rows, max_size=rows)
    x = torch.tensor(data.draw(points)).double()
    k1 = data.draw(st.integers(1, 10))
    numbers: dict[str, Any] = {
        "k1": k1,
        "k2": data.draw(st.integers(1, k1)),
        "weight": data.draw(st.sampled_from([0.0, 0.3, 1.0])),
    }
    own = side(x, torch.zeros(rows).long(), torch.arange(rows))
    want = torch.from_numpy(reranking.k_reciprocal(own, own, retrieval.euclidean, squared, **numbers))
    torch.testing.assert_close(k_reciprocal_distances(x, **numbers), want, rtol=1e-12, atol=1e-12)
    query = torch.tensor([[0.0, 0.0], [1.0, -1.0]]).double()
    asked = side(query, torch.zeros(2).long())
    alone = own._replace(ids=None)
    want = torch.from_numpy(reranking.k_reciprocal(asked, alone, retrieval.euclidean, squared, **numbers))
    torch.testing.assert_close(k_reciprocal_distances(query, x, **numbers), want, rtol=1e-12, atol=1e-12)


def test_neither_blocks_nor_the_order_of_rows_show() -> None:
    x, _ = grid(rows=120, seed=6)
    ids = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    whole = k_reciprocal_distances(x[:50], x[20:], ids[:50], ids[20:])
    expanded = expand_queries(x[:50], x[20:], ids[:50], ids[20:])
    with small_blocks(cells=1000, queries=7):
        blocks = k_reciprocal_distances(x[:50], x[20:], ids[:50], ids[20:])
        assert torch.equal(expand_queries(x[:50], x[20:], ids[:50], ids[20:]), expanded)
    torch.testing.assert_close(blocks, whole, rtol=1e-13, atol=1e-13)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(4))
    turned = k_reciprocal_distances(x[:50], x[20:][order], ids[:50], ids[20:][order])
    torch.testing.assert_close(turned, whole[:, order], rtol=1e-13, atol=1e-13)
    assert torch.equal(expand_queries(x[:50], x[20:][order], ids[:50], ids[20:][order]), expanded)


def test_numbers_of_any_size_give_the_same_ranks() -> None:
    x = cloud(rows=60, seed=7)[0].double()
    found = k_reciprocal_distances(x)
    torch.testing.assert_close(k_reciprocal_distances(1e6 * x + 3e6), found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"k1": 0}, "k_reciprocal.k1: expected an integer of 1 or more, got 0"),
        ({"k2": 2.5}, "k_reciprocal.k2: expected an integer of 1 or more, got 2.5"),
        ({"k1": 4, "k2": 5}, "k_reciprocal.k2: expected at most k1=4, got 5"),
        ({"weight": 1.5}, r"k_reciprocal.weight: expected a number in \[0, 1\], got 1.5"),
        ({"weight": float("nan")}, r"k_reciprocal.weight: expected a number in \[0, 1\], got nan"),
    ],
)
def test_numbers_out_of_range(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        k_reciprocal_distances(torch.randn(5, 2), **numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"k": 0}, "query_expansion.k: expected an integer of 1 or more, got 0"),
        ({"alpha": -1}, "query_expansion.alpha: expected a number of 0 or more, got -1"),
        ({"alpha": float("inf")}, "query_expansion.alpha: expected a number of 0 or more, got inf"),
    ],
)
def test_numbers_of_an_expansion_out_of_range(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand_queries(torch.randn(5, 2), **numbers)


@pytest.mark.parametrize("function", [k_reciprocal_distances, expand_queries])
def test_an_empty_gallery(function: Any) -> None:
    with pytest.raises(UserError, match="gallery: expected at least one item, got none"):
        function(torch.randn(5, 2), torch.empty(0, 2))


def test_too_large_a_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.evaluation.k_reciprocal.MOST", 4)
    with pytest.raises(
        UserError, match=r"gallery: expected at most 4 items for k-reciprocal re-ranking, got 5; its time"
    ):
        k_reciprocal_distances(torch.randn(5, 2))


@pytest.mark.parametrize(
    ("rerank", "message"),
    [
        (
            "k_reciprocol",
            "here: did you mean 'k_reciprocal'\\? expected k_reciprocal or query_expansion, or both in a list",
        ),
        (["query_expansion", 5], "here: expected k_reciprocal or query_expansion, or both in a list, got 5"),
        (True, "here: expected k_reciprocal or query_expansion, or both in a list, got True"),
        (
            {"k_reciprocal": {"k_1": 3}},
            "here.k_reciprocal: did you mean 'k1'\\? expected the settings k1, k2, weight, got 'k_1'",
        ),
        ({"query_expansion": 3}, "here.query_expansion: expected the settings k, alpha, got 3"),
        ({"query_expansion": {"k": 0}}, "query_expansion.k: expected an integer of 1 or more, got 0"),
    ],
)
def test_methods_that_do_not_exist(rerank: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rerank_methods(rerank, "here")
