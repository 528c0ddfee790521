"""Inputs as embeddings of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metric_module.distributed import shard
from metric_module.errors import NotComputableError
from metric_module.evaluation import raw_inputs
from metric_module.evaluation.raw_inputs import RawInputs, scaled_down
from tests.helpers.processes import on_ranks

CPU = torch.device("cpu")


def collected(*batches: Any, samples: int = 10) -> list[torch.Tensor]:
    found = RawInputs(samples)
    for batch in batches:
        found.add(batch, len(batch))
    return found.embeddings(CPU)


def test_vectors_stay_as_they_are() -> None:
    first, second = torch.randn(3, 5, dtype=torch.float64), torch.randn(2, 5)
    rows = collected(first, second)
    assert torch.equal(rows[0], first.float()) and torch.equal(rows[1], second)
    series = torch.randn(2, 3, 4)
    assert torch.equal(collected(series)[0], series.flatten(1))


def test_small_images_stay_as_they_are() -> None:
    images = torch.randn(2, 3, 32, 20)
    assert torch.equal(collected(images)[0], images.flatten(1))


def test_large_images_are_averaged_over_blocks() -> None:
    images = torch.randn(2, 3, 64, 128)
    blocks = images.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(-1, -2))  # (2, 3, 16, 32)
    torch.testing.assert_close(collected(images)[0], blocks.flatten(1))


@pytest.mark.parametrize(("most", "size"), [(1 << 20, (32, 16)), (3 * 400, (20, 10)), (3 * 64, (8, 4))])
def test_an_image_has_at_most_as_many_numbers_as_allowed(most: int, size: tuple[int, int]) -> None:
    found = scaled_down(torch.randn(1, 3, 100, 50), most)
    assert found.shape[2:] == size and found[0].numel() <= most


def test_the_size_follows_the_number_of_samples() -> None:
    """All pairs of the samples are compared, so twice as many samples have a quarter of the numbers."""
    images = torch.randn(2, 1, 64, 64)
    sides = [collected(images, samples=samples)[0].shape[1] for samples in (1_000, 50_000, 100_000)]
    assert sides == [32 * 32, 20 * 20, 10 * 10]
    with pytest.raises(NotComputableError, match=r"^the set is too large$"):
        collected(images, samples=1_000_000)
    with pytest.raises(NotComputableError, match=r"^the set is too large$"):
        collected(torch.randn(2, 500), samples=50_000)


@pytest.mark.parametrize(
    "inputs", [torch.arange(4), torch.arange(8).view(4, 2), {"a": torch.zeros(4, 2)}, (torch.zeros(4, 2),)]
)
def test_other_inputs_cannot_be_compared(inputs: Any) -> None:
    with pytest.raises(NotComputableError, match=r"^the inputs are not numbers of one fixed shape$"):
        collected(inputs)


def test_inputs_of_other_shapes_cannot_be_compared() -> None:
    found = RawInputs(4)
    for batch in (torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3)):
        found.add(batch, 2)
    assert found.absent == "the inputs have different shapes"
    with pytest.raises(NotComputableError, match=r"^the inputs have different shapes$"):
        found.embeddings(CPU)


def test_an_input_of_several_embeddings_cannot_be_compared() -> None:
    found = RawInputs(4)
    found.add(torch.zeros(2, 3, 4, 4), 32)
    assert found.absent == "an input has several embeddings"


def test_texts_become_tfidf_of_characters() -> None:
    """Cosines of n-grams, counted by hand: log-scaled counts, smoothed document frequencies, length 1."""
    batches = [["ab", "abab abc"], ["c"]]
    counts = []
    for text in (text for batch in batches for text in batch):
        grams: dict[str, int] = {}
        for word in text.split():
            padded = f" {word} "
            for size in (1, 2, 3):
                for start in range(len(padded) - size + 1):
                    gram = padded[start : start + size]
                    grams[gram] = grams.get(gram, 0) + 1
        counts.append(grams)
    names = sorted({name for grams in counts for name in grams})
    table = np.array([[1 + np.log(grams[name]) if name in grams else 0 for name in names] for grams in counts])
    inverse = np.log((1 + len(counts)) / (1 + (table > 0).sum(axis=0))) + 1
    table = table * inverse
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    pytest.importorskip("sklearn")
    rows = torch.cat(collected(*batches))
    np.testing.assert_allclose((rows @ rows.T).numpy(), table @ table.T, atol=1e-6)
    assert 0 < float(rows[0] @ rows[1]) < 0.999


def test_texts_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_inputs, "find_spec", lambda name: None)
    with pytest.raises(NotComputableError, match=r"^TF-IDF needs pip install scikit-learn$"):
        collected(["a", "b"])


def test_texts_without_characters() -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(NotComputableError, match=r"^the texts have no characters$"):
        collected(["", " "])


TEXTS = [["one", "two three"], ["three"], ["four five"]]


def texts_of_rank() -> torch.Tensor:
    rank, size = shard()
    return torch.cat(collected(*TEXTS[rank::size]))


def mixed_on_rank() -> str:
    found = RawInputs(4)
    found.add(torch.zeros(2, 3) if shard()[0] else torch.arange(2), 2)
    try:
        found.embeddings(CPU)
    except NotComputableError as reason:
        return str(reason)
    return ""


@pytest.mark.integration
def test_processes_weigh_the_texts_of_all(tmp_path: Path) -> None:
    """Frequencies are of all texts, so that rows of two processes can be compared."""
    pytest.importorskip("sklearn")
    whole = [torch.cat(collected(*TEXTS))[rows] for rows in ([0, 1, 3], [2])]
    for one, expected in zip(on_ranks(texts_of_rank, 2, tmp_path), whole, strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.integration
def test_processes_agree_that_inputs_cannot_be_compared(tmp_path: Path) -> None:
    reasons = on_ranks(mixed_on_rank, 2, tmp_path)
    assert reasons == ["the inputs are not numbers of one fixed shape", "another process cannot compare its inputs"]
