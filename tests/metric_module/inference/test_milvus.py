"""A Milvus collection answers as an ``EmbeddingIndex`` does. Run on milvus-lite, not on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import EmbeddingIndex, UserError
from metric_module.distances import Cosine, Distance, DotProduct, Euclidean, SquaredEuclidean
from metric_module.inference import MilvusIndex
from tests.helpers.embedders import LABELS, WORDS, Letters

PROBES = ["aab", "gh", "hh", "cde", "eeeeee"]

milvus = pytest.mark.integration


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("milvus_lite")
    from milvus_lite.server_manager import server_manager_instance

    yield str(tmp_path / "index.db")
    server_manager_instance.release_all()


@milvus
@pytest.mark.parametrize("distance", [Euclidean(), SquaredEuclidean(), Cosine()])
def test_the_answers_are_those_of_an_embedding_index(uri: str, distance: Distance) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries = torch.randn(1500, 8, generator=generator), torch.randn(40, 8, generator=generator)
    rows[7] = 0
    labels = [None if place % 3 else f"class {place % 7}" for place in range(1500)]
    embedder = Letters(distance, 0.3)
    ours, theirs = EmbeddingIndex(embedder), MilvusIndex(uri, embedder)
    for index in (ours, theirs):
        index.add(rows[:700], labels[:700])
        index.add(rows[700:], labels[700:])
    expected, found = ours.search(queries, k=12), theirs.search(queries, k=12)
    assert torch.equal(found.positions, expected.positions)
    torch.testing.assert_close(found.distances, expected.distances, rtol=1e-5, atol=1e-6)
    for threshold in (None, float(expected.distances[:, 0].median())):
        assert theirs.identify(queries, threshold) == ours.identify(queries, threshold)
    assert {None, "class 3"} <= set(ours.identify(queries, threshold))
    assert theirs.names == ours.names and theirs.labels == ours.labels and len(theirs) == 1500


@milvus
def test_items_are_added_and_found_again_in_the_file(uri: str) -> None:
    index = MilvusIndex.build(Letters(), WORDS[:4], LABELS[:4], uri=uri)
    index.add(WORDS[4:], LABELS[4:])
    expected = index.search(PROBES, k=9)
    assert expected.positions.shape == (5, 6)
    index.close()
    again, ours = MilvusIndex(uri, Letters()), EmbeddingIndex.build(Letters(), WORDS, LABELS)
    for one, other in zip(again.search(PROBES, k=9), expected, strict=True):
        assert torch.equal(one, other)
    assert again.identify(PROBES) == ours.identify(PROBES) == ["one", None, "six", "four", None]
    assert (again.names, again.labels, len(again)) == (ours.names, LABELS, 6)
    with pytest.raises(UserError, match="collection embeddings has 6 items; use add, or another collection"):
        MilvusIndex.build(Letters(), WORDS, uri=uri)
    assert len(MilvusIndex.build(Letters(), WORDS[:2], uri=uri, collection="other")) == 2
    message = r"expected {'embedding_Cosine': 8} .* in collection embeddings, got {'embedding_Euclidean': 8}"
    with pytest.raises(UserError, match=message):
        MilvusIndex(uri, Letters(Cosine()))


@pytest.mark.slow
def test_an_idle_index_prints_nothing(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    MilvusIndex.build(Letters(), WORDS[:4], uri=uri)
    time.sleep(90)  # the server answered the seventh ping, after about a minute
    assert capfd.readouterr() == ("", "")


MISTAKES: dict[str, Callable[[MilvusIndex], Any]] = {
    "threshold: expected one, .*; give threshold=": lambda index: index.identify(["a"]),
    "identify: expected items with labels, got none": lambda index: index.identify(["a"], threshold=1),
    r"queries: expected a tensor of shape \[N, 8\], got \(2, 3\)": lambda index: index.search(torch.zeros(2, 3)),
    "queries: .* NaN or infinity in 8 of 8 rows": lambda index: index.search(torch.eye(8).log()),
    "embeddings: .* NaN or infinity in 8 of 8 rows": lambda index: index.add(torch.eye(8).log()),
    "labels: expected a list of 1, one for each item, got 2": lambda index: index.add(["a"], ["b", "c"]),
    "k: expected 1 or more neighbours, got 0": lambda index: index.search(["a"], k=0),
    r"index.db: .*": lambda index: index.search(["a"], k=1 << 40),
}


@milvus
@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(uri: str, message: str) -> None:
    index = MilvusIndex.build(Letters(threshold=None), WORDS, uri=uri)
    with pytest.raises(UserError, match=message):
        MISTAKES[message](index)
    assert len(index) == 6


@milvus
def test_an_address_that_does_not_answer() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(UserError, match=r"http://127.0.0.1:1: .*connect"):
        MilvusIndex("http://127.0.0.1:1", Letters())


def test_a_distance_that_milvus_cannot_compute() -> None:
    expected = "Euclidean, SquaredEuclidean, Cosine or one with a Euclidean form, got DotProduct"
    with pytest.raises(UserError, match=f"MilvusIndex: expected distance {expected}"):
        MilvusIndex("index.db", Letters(DotProduct()))


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UserError, match=r"MilvusIndex needs pymilvus: pip install 'lightning-triplets\[milvus\]'"):
        MilvusIndex("index.db", Letters())
