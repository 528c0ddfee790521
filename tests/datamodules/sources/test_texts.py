"""Tests of texts by id, and of the problems reported."""

from __future__ import annotations

import pytest
import torch
from typing_extensions import override

from datamodules import PKDataModule, Samples, Texts
from datamodules.sampling.splits import split_samples
from metric_module.errors import UserError

WORDS = ["grey", "gray", "red", "Rot", "日本", "a\ud800", "x\0y", ""]


def test_texts_come_back_as_they_are() -> None:
    texts = Texts(WORDS)
    assert texts(torch.tensor([4, 0, 5, 6, 7])) == ["日本", "grey", "a\ud800", "x\0y", ""]
    assert texts.show([2, 1]) == ["red", "gray"]


def test_problems_are_listed() -> None:
    texts = Texts(["a", "b", "a", " ", "c", ""])
    splits = {"train": torch.tensor([0, 1, 3]), "val": torch.tensor([2, 4]), "test": torch.tensor([5])}
    assert texts.problems(splits) == ["2 texts are empty: row 3, row 5"]
    hashes = texts.contents().tolist()
    assert hashes[0] == hashes[2] and len(set(hashes)) == 5 and hashes[5] == 0
    assert texts.name_of(4) == "row 4 'c'"


class Words(PKDataModule):
    """Data module of ten classes with three words each."""

    words = tuple(f"word {number}" for number in range(30))

    @override
    def load(self) -> Samples:
        labels = torch.arange(30) // 3
        return Samples(Texts(self.words), labels, split_samples(labels, [f"class {n}" for n in range(10)]))


def test_batches_are_lists_of_texts() -> None:
    data = Words(classes_per_batch=3, samples_per_class=2)
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs == [f"word {id}" for id in batch.index.tolist()]
    assert len(batch.inputs) == 6


def test_preflight_stops_at_empty_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "words", ("", *Words.words[1:]))
    with pytest.raises(UserError, match="data: 1 texts are empty: row 0"):
        Words().prepare_data()
