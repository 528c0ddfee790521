"""Tests of images with several labels: forms of the column and mistakes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from datamodules import MultiLabelDataModule
from datamodules.relations.multi_label import read_labels
from metric_module import UserError

WANTED = [["a", "b"], ["b"], ["c"], ["a"]]


def labels_of(column: pa.ChunkedArray, separator: str = "|") -> list[list[str]]:
    """List the labels of each row."""
    rows, labels = read_labels(column, separator, "labels")
    found: list[list[str]] = [[] for _ in range(len(column))]
    for row, code in zip(rows.tolist(), labels.codes.tolist(), strict=True):
        found[row].append(labels.values[code].as_py())
    return found


@pytest.mark.parametrize(
    "values",
    [
        ["a|b", "b", "c", "a"],
        ["a|b|", "|b", "c||", "a"],
        [" a | b", "b ", "\tc", "a"],
        pa.array(["a|b", "b", "c", "a"], pa.large_string()),
        pa.array(["a|b", "b", "c", "a"], pa.string_view()),
        pa.array(["a|b", "b", "c", "a"]).dictionary_encode(),
        [["a", "b"], ["b"], ["c"], ["a"]],
        [["a ", "b", ""], ["b", None], ["c"], ["a"]],
        pa.array(WANTED, pa.large_list(pa.large_string())),
        pa.array(WANTED, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ],
)
def test_labels_in_every_form(values: Any) -> None:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    assert labels_of(pa.chunked_array([array])) == WANTED
    assert labels_of(pa.chunked_array([array[:1], array[1:3], array[3:]])) == WANTED, "whatever the chunks"


def test_numbers_are_labels() -> None:
    for values in (pa.array([7, -1, 7]), pa.array([7, -1, 7], pa.int8())):
        assert labels_of(pa.chunked_array([values])) == [["7"], ["-1"], ["7"]]
        assert labels_of(pa.chunked_array([values.dictionary_encode()])) == [["7"], ["-1"], ["7"]]
    assert labels_of(pa.chunked_array([[[1, 2], [2]]])) == [["1", "2"], ["2"]]
    assert labels_of(pa.chunked_array([pa.array([[1, 2], [2, 3]], pa.list_(pa.int32(), 2))])) == [
        ["1", "2"],
        ["2", "3"],
    ]
    assert labels_of(pa.chunked_array([pa.array([717, 7])]), separator="1") == [["717"], ["7"]], "never split"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a|b", "|", "c", " | "], r"^labels: no label in 2 rows \(from 0\): 1, 3$"),
        ([["a"], [], [None, " "]], r"^labels: no label in 2 rows \(from 0\): 1, 2$"),
        (["a", None], r"^labels: no value in 1 rows \(from 0\): 1$"),
        ([0.5, 1.0], "^labels: expected strings, integers or lists of these, got double$"),
        ([[0.5]], "^labels: expected strings, integers or lists of these, got list<"),
    ],
)
def test_rows_without_labels(values: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(pa.chunked_array([values]), "|", "labels")


def test_a_separator_that_no_row_has() -> None:
    with pytest.warns(
        UserWarning, match=r"^data: labels: no row has the separator '\|', so each image has a single label$"
    ):
        assert labels_of(pa.chunked_array([["a b"], ["c"]])) == [["a b"], ["c"]]
    with pytest.warns(
        UserWarning, match=r"label; ',' is in 2 of 3 rows: to split there give datamodule.separator='\",\"'$"
    ):
        labels_of(pa.chunked_array([["a,b", "a;b"], ["c,d"]]))
    assert labels_of(pa.chunked_array([["a;b"]])) == [["a;b"]]
    assert labels_of(pa.chunked_array([["a;b"], ["c"]]), separator=";") == [["a", "b"], ["c"]]


@pytest.mark.parametrize("separator", ["", None, 7])
def test_an_empty_separator(separator: Any) -> None:
    with pytest.raises(UserError, match=rf"^datamodule.separator: expected one or more characters, got {separator!r}$"):
        MultiLabelDataModule(path="labels.csv", separator=separator)


def test_a_table_of_lists(tmp_path: Path) -> None:
    images = [f"{number}.png" for number in range(20)]
    labels = [["even" if number % 2 == 0 else "odd", str(number // 4)] for number in range(20)]
    parquet.write_table(pa.table({"image": images, "labels": labels}), tmp_path / "lists.parquet")
    joined = pa.table({"image": images, "labels": ["|".join(row) for row in labels]})
    parquet.write_table(joined, tmp_path / "joined.parquet")
    one, other = (
        MultiLabelDataModule(path=str(tmp_path / name), preflight=False).data.sought["test"].positives
        for name in ("lists.parquet", "joined.parquet")
    )
    one, other = (positives.lists(torch.arange(4)) for positives in (one, other))
    assert torch.equal(one.columns, other.columns) and len(one.columns) > 0
    parquet.write_table(pa.table({"image": images, "labels": [[], *labels[1:]]}), tmp_path / "lists.parquet")
    with pytest.raises(UserError, match=r"lists.parquet: column 'labels': no label in 1 rows \(from 0\): 0$"):
        MultiLabelDataModule(path=str(tmp_path / "lists.parquet")).setup("fit")


def test_labels_of_val_and_test_are_trained_on(tmp_path: Path) -> None:
    """Every fifth image has a label that no other has: its split alone has it."""
    rows = [
        f"{number}.png,{'even' if number % 2 == 0 else 'odd'}{f'|own {number}' if number % 5 == 0 else ''}"
        for number in range(20)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *rows]))
    data = MultiLabelDataModule(path=str(tmp_path / "labels.csv"), preflight=False)
    tested = {rows[id].split(",")[1] for id in data.data.sought["test"].queries.tolist()}
    expected = {label for labels in tested for label in labels.split("|")}
    assert (
        data.classes_in("test")
        == len(expected)
        > data.classes_trained_on("test")
        == len(expected & {"even", "odd"})
        > 0
    )
