"""Search with re-ranking, compared with the functions of the evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import EmbeddingIndex, UserError
from metric_module.distances import Cosine, Distance, Euclidean, Manhattan
from metric_module.evaluation import expand_queries, k_reciprocal_distances
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud

DISTANCES: list[tuple[Distance, Any]] = [
    (Euclidean(), torch.cdist),
    (Manhattan(), lambda one, two: torch.cdist(one, two, p=1)),
    (Cosine(), lambda one, two: 1 - torch.nn.functional.cosine_similarity(one[:, None], two[None], dim=2)),
]


def points() -> tuple[Tensor, Tensor]:
    x = cloud(rows=80, seed=11)[0]
    return x[:12], x[12:]


def index_of(items: Tensor, distance: Distance) -> EmbeddingIndex:
    index = EmbeddingIndex(None, distance)
    for part in (items[:1], items[1:20], items[20:]):
        index.add(part)
        index._parts.append(items[:0])
    return index


@pytest.mark.parametrize(("distance", "measure"), DISTANCES)
def test_the_order_is_that_of_the_functions(distance: Distance, measure: Any) -> None:
    query, items = points()
    index, pairs = index_of(items, distance), measure(query.double(), items.double())
    plain = index.search(query, k=9)
    for rerank, final in {
        "k_reciprocal": k_reciprocal_distances(query, items, distance=distance),
        "query_expansion": measure(expand_queries(query, items, distance=distance).double(), items.double()),
    }.items():
        order = final.argsort(dim=1)[:, :9]  # (Q, 9)
        found = index.search(query, k=9, rerank=rerank)
        assert torch.equal(found.positions, order)
        torch.testing.assert_close(found.distances, pairs.gather(1, order), rtol=1e-6, atol=1e-9)
        assert not torch.equal(found.positions, plain.positions)
        with small_blocks(cells=200, queries=5):
            assert torch.equal(index_of(items, distance).search(query, k=9, rerank=rerank).positions, order)
    for got, want in zip(index.search(query, k=9), plain, strict=True):
        assert torch.equal(got, want)


def test_settings_and_new_items_are_seen() -> None:
    query, items = points()
    index = index_of(items[:50], Euclidean())
    settings = {"k_reciprocal": {"k1": 5, "k2": 2, "weight": 0.1}}
    for count in (50, 68):
        for rerank, numbers in (("k_reciprocal", {}), (settings, settings["k_reciprocal"])):
            want = k_reciprocal_distances(query, items[:count], **numbers).argsort(dim=1)[:, :7]  # type: ignore[arg-type]
            assert torch.equal(index.search(query, k=7, rerank=rerank).positions, want)
        if count == 50:
            index.add(items[50:])


def test_the_gallery_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    query, items = points()
    index = index_of(items, Euclidean())
    index.search(query, rerank="k_reciprocal")
    monkeypatch.setattr("metric_module.inference.reranked.ReciprocalGallery", None)
    assert index.search(query[:3], k=100, rerank="k_reciprocal").positions.shape == (3, 68)


@pytest.mark.parametrize("rerank", ["k_reciprocal", "query_expansion"])
def test_small_searches(rerank: str) -> None:
    empty = EmbeddingIndex(None, Euclidean()).search(torch.randn(2, 3), rerank=rerank)
    assert empty.positions.shape == (2, 0)
    one = index_of(torch.zeros(1, 3), Euclidean())
    assert one.search(torch.ones(2, 3), rerank=rerank).positions.tolist() == [[0], [0]]
    none = one.search(torch.ones(0, 3), k=5, rerank=rerank)
    assert none.positions.shape == none.distances.shape == (0, 1)


def test_mistakes_are_named() -> None:
    query, items = points()
    index = index_of(items, Euclidean())
    with pytest.raises(UserError, match=r"rerank: did you mean 'k_reciprocal'\? .* got 'k-reciprocal'"):
        index.search(query, rerank="k-reciprocal")
    both = ["k_reciprocal", "query_expansion"]
    with pytest.raises(
        UserError, match="rerank: expected one method for a search, got k_reciprocal and query_expansion"
    ):
        index.search(query, rerank=both)
    with pytest.raises(UserError, match="k: expected an integer of 1 or more, got 0"):
        index.search(query, k=0, rerank="k_reciprocal")
    with pytest.raises(UserError, match=r"queries: expected a tensor of shape \[N, 6\], got \(12, 5\)"):
        index.search(query[:, :5], rerank="query_expansion")
