"""Tests of samples with equal content: named, left out, or kept, whatever the source."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from datamodules import ArraysDataModule, ImageFolderDataModule, ManifestDataModule
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.verification_pairs import ListedPairs
from datamodules.sources.duplicates import find_equal, hash_rows, without_duplicates
from datamodules.sources.images import ImageFiles, StoredImages
from datamodules.sources.images_in_memory import ImagesInMemory
from datamodules.sources.paths import Paths
from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Arrays, Vectors
from metric_module import UserError

CONTENT = [5, 1, 5, 2, 3, 3, 4, 4]
"""Content of eight samples: 5 has two labels, 3 is in two splits, 4 repeats."""
LABELS = [0, 0, 1, 1, 2, 2, 3, 3]
SPLITS = {"train": torch.tensor([0, 1, 2, 3, 4]), "val": torch.tensor([5]), "test": torch.tensor([6, 7])}


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (3, 3), value).save(file, "PNG")
    return file.getvalue()


def image_files(folder: Path) -> Source:
    for row, value in enumerate(CONTENT):
        (folder / f"{row}.png").write_bytes(png(value))
    return ImageFiles(Paths(str(folder / f"{row}.png") for row in range(8)), 2, str(folder / "cache"))


SOURCES: dict[str, Callable[[Path], Source]] = {
    "files": image_files,
    "stored images": lambda folder: StoredImages(
        pa.chunked_array([[{"bytes": png(value), "path": None} for value in CONTENT]]), 2
    ),
    "texts": lambda folder: Texts([f"text {value}" for value in CONTENT]),
    "vectors": lambda folder: Vectors(pa.chunked_array([[[value, 0.5] for value in CONTENT]])),
    "arrays": lambda folder: Arrays(torch.tensor(CONTENT, dtype=torch.bfloat16)[:, None, None].expand(-1, 2, 3)),
    "images in memory": lambda folder: ImagesInMemory(
        torch.tensor(CONTENT, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2), 2
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_finds_equal_content(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)
    hashes = source.contents()
    assert hashes is not None and hashes.dtype == np.int64
    equal = find_equal(hashes, torch.tensor(LABELS), SPLITS)
    assert equal.spell(equal.labels, str) == ["0 = 2"]
    assert equal.spell(equal.splits & ~equal.labels, str) == ["4 = 5"]
    assert equal.spell(equal.repeated, str) == ["6 = 7"]
    assert equal.surplus().tolist() == [0, 2, 5, 7]


def test_groups_are_those_of_a_comparison_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    hashes, labels = random.integers(0, 40, 200), torch.from_numpy(random.integers(0, 3, 200))
    split = random.integers(0, 4, 200)
    splits = {name: torch.from_numpy(np.flatnonzero(split == number)) for number, name in enumerate("abc")}
    equal = find_equal(hashes, labels, splits)
    found = {
        tuple(group.tolist()): (bool(several), bool(apart))
        for group, several, apart in zip(np.split(equal.ids, equal.starts[1:]), equal.labels, equal.splits, strict=True)
    }
    expected = {}
    for content in range(1, 40):
        rows = [row for row in range(200) if hashes[row] == content and split[row] < 3]
        if len(rows) > 1:
            expected[tuple(rows)] = (len({int(labels[row]) for row in rows}) > 1, len({split[row] for row in rows}) > 1)
    assert found == expected and len(found) > 10
    assert [*found] == sorted(found), "in order of the first sample"


def test_rows_are_hashed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.sources.duplicates.BLOCK", 3)
    hashes = hash_rows(torch.arange(10)[:, None].expand(10, 3) // 2)
    assert (hashes[::2] == hashes[1::2]).sum() == 5 and len(set(hashes.tolist())) == 5


def test_a_cropped_file_is_another_content_in_another_box(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 1, 1]])
    hashes = ImageFiles(Paths([str(tmp_path / "a.png")] * 3), 2, str(tmp_path), boxes).contents()
    assert hashes[0] == hashes[2] != hashes[1]


def arrays(rows: list[tuple[int, int]], **settings: Any) -> ArraysDataModule:
    """Make ten classes of four samples, and copies of rows with their labels."""
    inputs = np.concatenate([np.random.default_rng(0).normal(size=(40, 3)), np.zeros((len(rows), 3))])
    labels = np.array([*np.arange(40) // 4, *(label for _, label in rows)])
    for place, (row, _) in enumerate(rows, start=40):
        inputs[place] = inputs[row]
    return ArraysDataModule(4, 2, arrays={"inputs": inputs, "labels": labels}, num_workers=0, **settings)


def test_two_labels_are_named_even_if_our_own_split_separates_them() -> None:
    data = arrays([])
    train, test = (int(data.samples.splits[split][0]) for split in ("train", "test"))
    labels = data.samples.labels
    (problem,) = arrays([(train, int(labels[test]))]).find_problems()
    assert problem == (
        "1 contents have several labels (datamodule.duplicates=drop leaves them out, keep uses them): "
        f"sample {train} ({labels[train]}, train) = sample 40 ({labels[test]}, test)"
    )
    with pytest.raises(UserError, match=r"^data: 1 contents have several labels"):
        arrays([(train, int(labels[test]))]).prepare_data()


def test_repeated_rows_are_a_warning_with_a_count() -> None:
    """Every row of the set twice, which made recall at 1 perfect for random embeddings."""
    data = arrays([(row, row // 4) for row in range(40)])
    with pytest.warns(
        UserWarning, match=r"^data: 40 samples repeat another one of their class \(sample 0 \(0, .*"
    ) as warned:
        data.prepare_data()
    (warning,) = warned
    assert str(warning.message).count(" = ") == 5 and " and 35 more); datamodule.duplicates=drop" in str(
        warning.message
    )


def test_drop_keeps_the_first_and_nothing_of_two_labels() -> None:
    rows = [(row, row // 4) for row in range(4, 40)] + [(0, 1)]
    data = arrays(rows, duplicates="drop")
    assert torch.cat([*data.samples.splits.values()]).sort().values.tolist() == [*range(1, 40)]
    data.prepare_data()
    assert torch.equal(data.samples.labels[:40], torch.arange(40) // 4), "ids stay rows"


def test_keep_says_one_line(caplog: pytest.LogCaptureFixture) -> None:
    data = arrays([(0, 1), (4, 1)], duplicates="keep")
    with caplog.at_level(logging.INFO):
        data.prepare_data()
    assert [record.message for record in caplog.records] == [
        "data: 4 samples share 2 contents (1 with several labels, 0 in several splits), and all are used "
        "(datamodule.duplicates=keep)"
    ]
    assert len(torch.cat([*data.samples.splits.values()])) == 42


def test_a_file_in_two_splits_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,label,split\n"
        + "".join(f"{s} {c} {n},{c},{s}\n" for s in SPLITS for c in "ab" for n in "12")
        + "test a 1,a,val\n"
    )
    data = ManifestDataModule(table=str(tmp_path / "a.csv"), text="text", split="split", num_workers=0)
    assert data.find_problems() == [
        "1 contents are in several splits (datamodule.duplicates=drop uses the first of each, keep all): "
        "row 8 'test a 1' (a, test) = row 12 'test a 1' (a, val)"
    ]


def test_drop_refuses_to_empty_a_split_or_to_break_listed_pairs() -> None:
    samples = Samples(SOURCES["texts"](Path()), torch.tensor(LABELS), SPLITS)
    with pytest.raises(UserError, match=r"datamodule.duplicates=drop: leaves no sample in val"):
        without_duplicates(samples)
    listed = samples._replace(listed=ListedPairs(torch.tensor([[1, 7]]), torch.tensor([0])))
    with pytest.raises(
        UserError, match=r"=drop: would leave out images of listed pairs; give datamodule.duplicates=keep"
    ):
        without_duplicates(listed)


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datamodule.duplicates: expected error or drop or keep, got 'no'"):
        ImageFolderDataModule(root=str(tmp_path), duplicates="no")
