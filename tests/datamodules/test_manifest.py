"""Tests of a table of samples: accepted columns, mistakes in them, and the cost of millions of rows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import csv, parquet

from benchmarks.manifest import Measured, measure_apart
from datamodules import ManifestDataModule
from metric_module.errors import UserError
from tests.helpers.command_line import command_in

ROWS = 40
PERSONS = [-5, 2**53, 2**53 + 1, 0, 7, 8, 9, 10, 100, 3]


def columns(**changes: Any) -> dict[str, Any]:
    """Make ten people of four rows each, six of them for training, and two cameras."""
    number = np.arange(ROWS)
    split = np.array(["train"] * 6 + ["val"] * 2 + ["test"] * 2)[number // 4]
    return {
        "path": [f"pictures/{row}.png" for row in number],
        "words": [f"row {row}, of\nsome words" for row in number],
        "vector": [[float(row), 1.0, -row] for row in number],
        "person": [PERSONS[row // 4] for row in number],
        "part": split.tolist(),
        "camera": [f"camera {row % 2}" for row in number],
        "use": [None if part == "train" else ["query", "gallery"][row % 2] for row, part in zip(number, split)],  # noqa: B905
        "unused": number.tolist(),
    } | changes


def write(folder: Path, kind: str = "parquet", **changes: Any) -> str:
    """Write a table to a file."""
    content = columns(**changes)
    if kind != "parquet":
        content.pop("vector")
    table, path = pa.table(content), folder / f"table.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=7)
    else:
        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if kind == "tsv" else ","))
    return str(path)


def module(table: str, **settings: Any) -> ManifestDataModule:
    given = {"label": "person", "classes_per_batch": 2, "samples_per_class": 2, "image_size": 8, "num_workers": 0}
    return ManifestDataModule(table=table, **{**given, **settings})


def test_images(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for row in range(ROWS):
        Image.new("RGB", (9, 12), (6 * row, 0, 0)).save(tmp_path / f"pictures/{row}.png")
    own = {"split": "part", "group": "camera", "role": "use"}
    data = module(write(tmp_path), image="path", cache_dir=str(tmp_path), **own)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    reds = ((batch.inputs[:, 0].mean(dim=(1, 2)) + 1) * 127.5 / 6).round().long()
    assert torch.equal(reds, batch.index) and batch.inputs.shape == (4, 3, 8, 8)
    assert {name: len(ids) for name, ids in data.samples.splits.items()} == {"train": 24, "val": 8, "test": 8}
    assert data.groups is not None and torch.equal(data.groups, torch.arange(ROWS) % 2)
    assert data.queries is not None and data.queries[24:].tolist() == [True, False] * 8
    assert data.classes_trained_on("test") == 0
    assert isinstance(data.show([3])[0], Image.Image)
    (tmp_path / "moved").mkdir()
    elsewhere = module(write(tmp_path), image="path", root=str(tmp_path / "moved"))
    assert elsewhere.samples.fetch.paths[3] == str(tmp_path / "moved/pictures/3.png")  # type: ignore[attr-defined]
    assert data.augment is not None and data.turned_share == 0.6
    (tmp_path / "pictures/11.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 files that cannot be read: .*pictures/11.png \(empty file\)"):
        module(write(tmp_path), image="path", cache_dir=str(tmp_path)).prepare_data()


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv"])
def test_texts(tmp_path: Path, kind: str) -> None:
    data = module(write(tmp_path, kind), text="words")
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs == [f"row {row}, of\nsome words" for row in batch.index.tolist()]
    assert data.show([5]) == ["row 5, of\nsome words"]
    assert data.augment is None and data.turned_share == 0
    assert sum(map(len, data.samples.splits.values())) == ROWS
    assert [data.classes_trained_on(split) for split in ("val", "test")] == [0, 0]


def test_vectors(tmp_path: Path) -> None:
    fixed = pa.array(columns()["vector"], pa.list_(pa.float64(), 3))
    for changes in ({}, {"vector": fixed}):
        data = module(write(tmp_path, **changes), array="vector")
        data.prepare_data()
        batch = next(iter(data.val_dataloader()))
        rows = batch.index.float()
        assert torch.equal(batch.inputs, torch.stack([rows, torch.ones_like(rows), -rows], dim=1))
        assert data.show([2]) == ["2 1 -2"]


def test_labels_are_the_values_themselves(tmp_path: Path) -> None:
    """Integers that float32 or float64 would merge, negative integers, and strings of digits stay distinct classes."""
    samples = module(write(tmp_path), text="words").samples
    named = [int(samples.class_names[label]) for label in samples.labels.tolist()]
    assert named == columns()["person"]
    assert list(samples.class_names) == [str(person) for person in sorted(PERSONS)]
    digits = [["007", "7", "07", "1", "2", "3", "4", "5"][row // 5] for row in range(ROWS)]
    for kind in ("csv", "parquet"):
        samples = module(write(tmp_path, kind, person=digits), text="words").samples
        assert [samples.class_name(label) for label in samples.labels.tolist()] == digits
    kept = pa.DictionaryArray.from_arrays([row // 5 for row in range(ROWS)], list("hgfedcbaz"))
    samples = module(write(tmp_path, person=kept), text="words").samples
    assert list(samples.class_names) == list("abcdefgh"), "z has no rows"


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"label": "name"}, r"table.parquet has no column 'name', only path, words, vector, person, part, camera"),
        (
            {"person": [None, *range(38), None]},
            {},
            r"^.*/table.parquet: column 'person': no value in 2 rows \(from 0\): 0, 39$",
        ),
        (
            {"person": ["", *"a" * 39]},
            {},
            r"^.*/table.parquet: column 'person': an empty label in 1 rows \(from 0\): 0$",
        ),
        ({"person": [0.5] * 40}, {}, r"^.*/table.parquet: column 'person': expected strings or integers, got double"),
        ({"words": [None] * 25 + ["a"] * 15}, {}, r"'words': no value in 25 rows \(from 0\): 0, .* 19 and 5 more"),
        ({"words": [1] * 40}, {}, "table.parquet: column 'words': expected strings, got int64"),
        (
            {"part": ["dev"] * 40},
            {"split": "part"},
            "table.parquet: column 'part': expected train, val, test, got 'dev'$",
        ),
        ({"part": list("abcdefgh") * 5}, {"split": "part"}, "got 'a', 'b', 'c', 'd', 'e' and 3 more"),
        (
            {"part": ["train"] * 40},
            {"split": "part"},
            "column 'part': no row of val, test; without this setting the cl",
        ),
        ({"use": ["probe"] * 40}, {"role": "use"}, "table.parquet: column 'use': expected query, gallery, got 'probe'"),
        ({"use": [None] * 40}, {"role": "use"}, r"column 'use': val needs query or gallery, nothing in 8 rows \(from"),
        ({"use": ["query"] * 40}, {"role": "use"}, "column 'use': val has no row of gallery"),
        (
            {"camera": [None] + [1] * 39},
            {"group": "camera"},
            r"table.parquet: column 'camera': no value in 1 rows \(from 0\): 0",
        ),
        ({}, {"text": None, "image": "path", "root": "gone"}, "^datamodule.root: no such folder: gone$"),
        ({}, {"text": None, "array": "words"}, "table.parquet: column 'words': expected lists of numbers, got string"),
    ],
)
def test_a_broken_table(tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        module(write(tmp_path, **changes), **{"text": "words", **settings}).setup("fit")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.parquet", b"PAR1 no", r"cannot read .*a.parquet \("),
        ("b.csv", b"", r"b.csv has no column 'person', only an empty line"),
        ("c.csv", b"person,words\n", r"c.csv has no rows"),
        ("d.csv", b"person,words\n1,2,3\n", r"cannot read .*d.csv \(.*Expected 2 columns, got 3"),
        ("e.csv", "person,words\n1,ü\n".encode("latin-1"), r"e.csv: expected text in UTF-8 \("),
        ("h.csv", "person,wörds\n1,u\n".encode("utf-16"), r"h.csv: expected text in UTF-8 \("),
        ("i.csv", b"person,words\n1," + b"u" * 20_000 + b"\xfc\n", r"i.csv: expected text in UTF-8 \(.*UTF8"),
        (
            "j.csv",
            b"person;words\n1;a\n",
            r"j.csv: expected a comma between columns, got a semicolon in 'person;words'",
        ),
        ("k.csv", b"person\twords\n1\ta\n", r"k.csv: expected a comma between columns, got a tab in 'person\\twords'"),
        ("l.tsv", b"person,words\n1,a\n", r"l.tsv: expected a tab between columns, got a comma in 'person,words'"),
        ("f.xlsx", b"", r"expected a file of .csv, .tsv, .*.parquet, .pq, got .*f.xlsx"),
        ("g.csv", b"person,words,words\n1,a,b\n", r"g.csv has 2 columns 'words', only person, words, words"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"datamodule.table: .*{message}") as error:
            module(str(tmp_path / name), text="words").setup("fit")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"datamodule.table: no such file: .*none.csv"):
        module(str(tmp_path / "none.csv"), text="words").setup("fit")


def test_bad_arguments(tmp_path: Path) -> None:
    for settings, count in (({}, 0), ({"text": "words", "image": "path"}, 2)):
        with pytest.raises(UserError, match=f"expected one of the columns image, text and array, got {count}"):
            module("table.csv", **settings)
    with pytest.raises(
        UserError, match=r"datamodule.array: expected a Parquet file \(only it holds lists of numbers\), got t.csv"
    ):
        module("t.csv", array="vector")


def test_the_preflight_of_texts(tmp_path: Path) -> None:
    words = [f"text {row}" for row in range(ROWS)]
    words[3] = words[30] = words[39] = "the same"
    words[9] = " \t"
    data = module(write(tmp_path, words=words), text="words", split="part")
    with pytest.raises(UserError) as error:
        data.prepare_data()
    assert str(error.value).startswith("data: 1 texts are empty: row 9; 1 contents have several labels (")
    assert re.search(
        r"row 3 'the same' \(\S+, train\) = row 30 'the same' \(\S+, val\) = row 39 'the same'", str(error.value)
    )


def test_the_preflight_of_vectors(tmp_path: Path) -> None:
    vectors = columns()["vector"]
    vectors[8], vectors[9], vectors[12], vectors[20] = [0.0, float("nan"), 1.0], [1.0], [1.0, None, 3.0], [1e39, 0, 0]
    data = module(write(tmp_path, vector=vectors), array="vector")
    with pytest.raises(UserError) as error:
        data.prepare_data()
    reported = "data: 1 rows have not 3 numbers, as row 0 has: row 9; "
    reported += "3 rows hold NaN, infinity or more than float32 can: row 8, row 12, row 20"
    assert str(error.value) == reported
    data = module(write(tmp_path, vector=vectors), array="vector", preflight=False)
    with pytest.raises(UserError, match=r"data: cannot read row 9 \(1 numbers, 3 in row 0\)"):
        list(data.predict_dataloader())


@pytest.mark.parametrize("chunk", [None, 3])
def test_texts_are_trained_and_evaluated_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int | None
) -> None:
    command = command_in(tmp_path, monkeypatch)
    table = write(tmp_path, "csv")
    words = ["datamodule=manifest", f"datamodule.table={table}", "datamodule.text=words", "datamodule.label=person"]
    small = ["datamodule.classes_per_batch=4", "datamodule.num_workers=0", "trainer.accelerator=cpu"]
    mine = [
        "encoder=custom",
        "encoder._target_=tests.helpers.texts.CharacterCounts",
        f"+module.encode_chunk_size={chunk}",
    ]
    if chunk is None:
        mine.pop()
    assert command(*words, *small, *mine, "trainer.max_steps=2", "datamodule.group=camera", "logger=csv") == 0
    (run,) = (tmp_path / "runs" / "train").iterdir()
    figures: Mapping[str, Any] = json.loads((run / "metrics.json").read_text())
    assert {"recall_at_1", "cross_group_recall_at_1"} < figures["test"].keys()
    assert "some words" in (run / "report.html").read_text()


def measured(folder: Path, rows: int, classes: int) -> Measured:
    """The benchmark's measurement, with eight workers."""
    given = {"rows": rows, "classes": classes, "workers": 8, "batches": 32, "image_size": 64, "split_classes": False}
    return measure_apart(folder / "table.parquet", type("Given", (), given)())


@pytest.mark.slow
def test_ten_million_rows(tmp_path: Path) -> None:
    found = measured(tmp_path, 10_000_000, 100_000)
    assert found.setup < 5
    assert found.memory < 1000


def test_a_row_costs_few_bytes(tmp_path: Path) -> None:
    """Workers share only Arrow buffers and ids; a list of strings would take ten times as much memory."""
    path = tmp_path / "table.parquet"
    before = pa.total_allocated_bytes()
    table = pa.table({"path": [f"images/{row:09d}.jpg" for row in range(100_000)], "label": np.arange(100_000) // 10})
    parquet.write_table(table, path)
    del table
    data = ManifestDataModule(table=str(path), image="path", preflight=False)
    data.setup("fit")
    assert data.samples.labels.nbytes + sum(ids.nbytes for ids in data.samples.splits.values()) == 16 * 100_000
    deadline = time.monotonic() + 10  # Arrow's threads release the buffers of the file a moment later
    while pa.total_allocated_bytes() - before >= 40 * 100_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pa.total_allocated_bytes() - before < 40 * 100_000
