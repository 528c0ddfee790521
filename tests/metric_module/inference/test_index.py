"""Search and identification in embedded items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metric_module import EmbeddingIndex, UserError
from metric_module.distances import Cosine, Euclidean, Manhattan
from tests.helpers.embedders import LABELS, WORDS, Letters, built


def test_search_of_items_and_of_embeddings() -> None:
    index = built()
    found = index.search(["aab", "hh"], k=3)
    assert found.positions.tolist() == [[0, 1, 4], [5, 4, 3]]
    torch.testing.assert_close(found.distances[1], torch.tensor([1.0, 2.0, 8.0]).double().sqrt())
    assert torch.equal(index.search(Letters().embed(["aab", "hh"]), k=3).positions, found.positions)
    assert index.search(["aab"]).positions.shape == (1, 6) and len(index) == 6
    assert index.names == ["0", "x/aab.png", "2", "3", "4", "5"] and index.labels == LABELS
    assert torch.equal(index.embeddings, Letters().embed(WORDS))
    assert isinstance(built(Cosine()).distance, Cosine)
    assert built(Manhattan()).search(["hh"], k=2).distances.tolist() == [[1.0, 2.0]]


def test_identify_by_the_nearest_item_with_a_label() -> None:
    index = built()
    assert index.threshold == 1.5
    assert index.identify(["aab", "gh", "hh", "cde", "eeeeee"]) == ["one", None, "six", "four", None]
    assert index.identify(["gh"], threshold=2.3) == ["six"], "the item itself has no label"
    assert index.identify(["hh"], threshold=1.0) == ["six"] and index.identify(["hh"], threshold=0.99) == [None]
    assert built(threshold=None).identify(["hh"], threshold=1) == ["six"]


def test_identify_agrees_with_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries = torch.randn(300, 8, generator=generator), torch.randn(40, 8, generator=generator)
    labels = [None if place % 3 == 1 or 100 <= place < 200 else f"class {place % 7}" for place in range(300)]
    index = EmbeddingIndex(None, Euclidean())
    for first in range(0, 300, 100):
        index._parts.append(rows[:0])
        index.add(rows[first : first + 100], labels[first : first + 100])
    expected = []
    for query in queries.double():
        far = [
            torch.inf if label is None else float((query - row).norm()) for row, label in zip(rows, labels, strict=True)
        ]
        expected.append(labels[int(np.argmin(far))] if min(far) <= 2.0 else None)
    assert None in expected and len(set(expected)) > 3
    assert index.identify(queries, threshold=2.0) == expected


def test_add_embeds_in_batches_and_continues_the_positions() -> None:
    embedder = Letters()
    index = EmbeddingIndex.build(embedder, WORDS[:2], batch_size=7)
    index.add(["b", "y/c"], ["new", None], batch_size=3)
    index.add(torch.eye(8)[:1])
    assert embedder.batch_sizes == [7, 3] and len(index) == 5 and len(index._parts) == 1
    assert index.names == ["0", "x/aab.png", "2", "y/c", "4"] and index.labels == [None, None, "new", None, None]
    assert index.search(["a"], k=1).positions.tolist() == [[4]]
    assert index.identify(["bb"]) == ["new"]


def test_given_embeddings_are_copied() -> None:
    rows = torch.eye(8)
    index = EmbeddingIndex(None, Euclidean())
    index.add(rows)
    rows.zero_()
    assert torch.equal(index.embeddings, torch.eye(8))


def unlabelled() -> EmbeddingIndex:
    return EmbeddingIndex.build(Letters(), WORDS)


MISTAKES: dict[str, Callable[[], Any]] = {
    "index: expected an embedder or a distance, got neither": lambda: EmbeddingIndex(None),
    "labels: expected a list of 6, one for each item, got 2": lambda: EmbeddingIndex.build(
        Letters(), WORDS, ["a", "b"]
    ),
    "labels: expected a list of 6, .*, got 'abcdef'": lambda: EmbeddingIndex.build(Letters(), WORDS, "abcdef"),
    "labels: expected text or None, got 3": lambda: EmbeddingIndex.build(Letters(), ["a"], [3]),  # type: ignore[list-item]
    "labels: expected text or None, got ''": lambda: EmbeddingIndex.build(Letters(), ["a"], [""]),
    "identify: expected a threshold, .*; give threshold=": lambda: built(threshold=None).identify(["a"]),
    "identify: expected items with labels, got none": lambda: unlabelled().identify(["a"]),
    r"queries: expected a tensor of shape \[N, 8\], got \(2, 3\)": lambda: built().search(torch.zeros(2, 3)),
    r"queries: .* NaN or infinity in 1 of 2 rows \(first rows: \[1\]\)": lambda: built().search(
        torch.tensor([0.0, torch.nan])[:, None].expand(2, 8)
    ),
    r"embeddings: expected a tensor of shape \[N, 8\], got \(2, 3\)": lambda: built().add(torch.zeros(2, 3)),
    r"embeddings: .* NaN or infinity in 8 of 8 rows": lambda: built().add(torch.eye(8).log()),
    "k: expected 1 or more neighbours, got 0": lambda: built().search(["a"], k=0),
    r"x.csv: expected a name that ends with .arrow, .parquet or .npz, got '.csv'": lambda: built().write("x.csv"),
    r"y.txt: expected a name that ends with .arrow, .parquet or .npz": lambda: EmbeddingIndex.read("y.txt"),
    "x.arrow: expected at least one item to write, got none": lambda: EmbeddingIndex(Letters()).write("x.arrow"),
    r"cannot write the index \(File name too long\)": lambda: built().write(f"{'x' * 250}.arrow"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        MISTAKES[message]()
    assert not list(tmp_path.iterdir())
