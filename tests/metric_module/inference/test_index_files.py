"""The file of an index: what is written is read, and files of strangers are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from metric_module import Embedder, EmbeddingIndex, UserError
from metric_module.distances import SNR, Cosine, Distance, Euclidean
from metric_module.encoders import MLP
from metric_module.inference import index as module
from metric_module.storage.embedding_file import file_schema
from metric_module.storage.weights import fingerprint
from tests.helpers.embedders import LABELS, Letters, built

KINDS = ["arrow", "parquet", "npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index, path = built(Cosine()), tmp_path / f"new/index.{kind}"
    monkeypatch.setattr(module, "_ROWS", 4)  # two batches
    index.write(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    for embedder in (None, Letters(Cosine(), None)):
        again = EmbeddingIndex.read(path, embedder)
        assert (again.names, again.labels, again.threshold) == (index.names, index.labels, 1.5)
        assert isinstance(again.distance, Cosine) and torch.equal(again.embeddings, index.embeddings)
    assert again.identify(["hh"]) == ["six"]
    assert EmbeddingIndex.read(path, Letters(Cosine(), 0.25)).threshold == 0.25
    again.add(["e"], ["four"])
    again.write(path)  # over the file that is mapped
    assert EmbeddingIndex.read(path).labels == [*LABELS, "four"] and again.search(["e"], 1).positions.tolist() == [[6]]
    bare = EmbeddingIndex.build(Letters(threshold=None), ["a"])
    bare.write(path)
    assert EmbeddingIndex.read(path).threshold is None


def test_the_columns_are_those_of_the_task(tmp_path: Path) -> None:
    built().write(tmp_path / "index.arrow")
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "index.arrow"))).read_all()
    assert table.schema.equals(file_schema(8, "Euclidean", 1.5, Letters().fingerprint), check_metadata=True)
    assert table["id"].to_pylist() == list(range(6)) and table["label_id"].to_pylist() == [0, 1, -1, 2, -1, 3]
    assert table["split"].null_count == 6


def test_an_arrow_file_is_not_copied(tmp_path: Path) -> None:
    built().write(tmp_path / "index.arrow")
    before = pa.total_allocated_bytes()
    index = EmbeddingIndex.read(tmp_path / "index.arrow")
    assert pa.total_allocated_bytes() == before
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "index.arrow" in line]
    ranges = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    assert all(any(start <= part.data_ptr() < stop for start, stop in ranges) for part in index._parts)


def change(path: Path, **columns: Any) -> None:
    """Write an Arrow file again with other columns; None removes one, and ``metadata`` replaces entries."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    about = {**table.schema.metadata, **columns.pop("metadata", {})}
    for name, values in columns.items():
        table = table.drop_columns(name) if name in table.column_names else table
        table = table if values is None else table.append_column(name, values)
    table = table.replace_schema_metadata({key: value for key, value in about.items() if value})
    path.unlink()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def vectors(rows: Any, width: int = 8) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows), width)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": None}, "cannot read embeddings .*name"),
        ({"label": pa.array(range(6))}, "column label: expected strings, got int64"),
        ({"name": pa.array(["a", None] * 3)}, "column name: expected a name in every row, got 3 without"),
        ({"embedding": pa.array(range(6))}, "column embedding: expected lists of float32 of one length, got int64"),
        ({"embedding": vectors(np.zeros(48))}, r"lists of float32 of one length, got fixed_size_list<.*double>\[8\]"),
        ({"embedding": vectors([1.0] * 47 + [None]).cast(pa.list_(pa.float32(), 8))}, "in every place, got nulls"),
        ({"metadata": {b"threshold": b"near"}}, "could not convert string to float: 'near'"),
        ({"metadata": {b"threshold": b"nan"}}, "threshold: expected a finite number, got nan"),
        ({"metadata": {b"distance": b"EuclideanForm"}}, "unknown distance 'EuclideanForm'; give the embedder"),
        ({"metadata": {b"distance": b"os\x1b"}}, r"unknown distance 'os\\x1b'"),
        ({"metadata": {b"distance": b"Distance"}}, "unknown distance 'Distance'"),
        ({"metadata": {b"distance": b""}}, "unknown distance None; give"),
    ],
)
def test_files_of_strangers(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "index.arrow"
    built().write(path)
    change(path, **columns)
    with pytest.raises(UserError, match=message) as error:
        EmbeddingIndex.read(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_text_and_offsets_of_a_stranger_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "index.arrow"
    built().write(path)
    content, offsets = path.read_bytes(), np.array([0, 1, 10, 11, 12, 13, 14], np.int32)  # of the names
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), (10**8 * offsets).tobytes()))
    with pytest.raises(UserError, match="cannot read embeddings"):
        EmbeddingIndex.read(path)
    path.write_bytes(content.replace(b"x/aab.png", b"x/aab.pn\xff"))
    with pytest.raises(UserError, match=r"cannot read embeddings .*UTF8"):
        EmbeddingIndex.read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_broken_and_missing_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"index.{kind}"
    with pytest.raises(UserError, match=rf"index.{kind}: cannot read embeddings \(No such file or directory\)"):
        EmbeddingIndex.read(path)
    built().write(path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"index.{kind}: cannot read embeddings \("):
            EmbeddingIndex.read(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"embedding": np.zeros((6, 8))}, r"embedding: expected float32 of shape \[N, D\], got float64 \[6, 8\]"),
        ({"embedding": np.zeros((5, 8), np.float32)}, "cannot read embeddings"),
        ({"name": np.array([object()] * 6)}, "cannot read embeddings .*Object arrays cannot be loaded"),
        ({"name": np.arange(6)}, "column name: expected strings, got int64"),
        ({"metadata": np.array("{")}, "cannot read embeddings"),
    ],
)
def test_npz_files_of_strangers(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "index.npz"
    built().write(path)
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **{**content, **columns})
    with pytest.raises(UserError, match=message):
        EmbeddingIndex.read(path)


def test_nan_in_a_file_is_found_by_a_search(tmp_path: Path) -> None:
    path, rows = tmp_path / "index.arrow", np.ones(48, np.float32)
    built().write(path)
    rows[20] = np.nan
    change(path, embedding=vectors(rows))
    with pytest.raises(UserError, match=r"gallery: .* NaN or infinity in row 2$"):
        EmbeddingIndex.read(path, Letters()).search(["a"])


def test_a_file_without_rows(tmp_path: Path) -> None:
    schema = file_schema(8, "Euclidean", None)
    parquet.write_table(schema.empty_table(), tmp_path / "index.parquet")
    index = EmbeddingIndex.read(tmp_path / "index.parquet")
    assert len(index) == 0 and index.search(torch.eye(8)).positions.shape == (8, 0)


def test_an_embedder_that_does_not_fit_a_file(tmp_path: Path) -> None:
    path = tmp_path / "index.arrow"
    built().write(path)
    with pytest.raises(UserError, match=r"index.arrow: expected distance SNR as of the embedder, got Euclidean"):
        EmbeddingIndex.read(path, Letters(SNR()))
    with pytest.raises(UserError, match=r"index.arrow: expected 9 numbers as of the embedder, got 8"):
        EmbeddingIndex.read(path, Letters(width=9))
    with pytest.raises(UserError, match="index: expected embeddings, a 2-D tensor, as there is no embedder"):
        EmbeddingIndex.read(path).search(["a"])


def test_a_distance_of_ones_own_comes_with_the_embedder(tmp_path: Path) -> None:
    class Own(Distance):
        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            return (query[:, None] - reference[None]).abs().amax(dim=-1)

    path, index = tmp_path / "index.arrow", built(Own())
    index.write(path)
    with pytest.raises(UserError, match=r"unknown distance 'Own'; give the embedder: read\(path, embedder\)"):
        EmbeddingIndex.read(path)
    again = EmbeddingIndex.read(path, Letters(Own()))
    assert again.search(["aab", "hh"], 3).positions.tolist() == index.search(["aab", "hh"], 3).positions.tolist()


def test_embeddings_of_another_model_are_refused(tmp_path: Path) -> None:
    """Their width and distance say nothing about it."""
    first, second = (Embedder(MLP(in_features=3, embedding_dim=8), Euclidean(), device="cpu") for _ in range(2))
    index = EmbeddingIndex.build(first, torch.eye(8))
    index.write(tmp_path / "index.arrow")
    again = EmbeddingIndex.read(tmp_path / "index.arrow", first)
    again.write(tmp_path / "again.parquet")
    assert len(EmbeddingIndex.read(tmp_path / "again.parquet", first)) == 8
    for name in ("index.arrow", "again.parquet"):
        with pytest.raises(UserError, match=rf"{name}: expected embeddings of this model, got those of another"):
            EmbeddingIndex.read(tmp_path / name, second)
    with torch.no_grad():
        next(first.encoder.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(first.encoder) != first.fingerprint
