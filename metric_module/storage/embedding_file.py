"""Files of embeddings: Arrow, Parquet and npz with the same columns.

Shapes: N = samples, n = samples of a part, D = embedding size.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from metric_module.errors import UserError, printable


class EmbeddingFile(NamedTuple):
    """Content of a file.

    Attributes:
        names: Name of each sample, strings ``(N,)``.
        labels: Class name of each sample, strings ``(N,)``, null where there is none.
        parts: Embeddings, float32 ``(n, D)`` each; of an Arrow file read-only and mapped, not in memory.
        width: D.
        distance: Class name of the distance, or None.
        threshold: Distance up to which two samples count as the same, or None.
        model: Fingerprint of the encoder, or None.
    """

    names: pa.ChunkedArray
    labels: pa.ChunkedArray
    parts: list[Tensor]
    width: int
    distance: str | None
    threshold: float | None
    model: str | None


def file_schema(width: int, distance: str, threshold: float | None, model: str | None = None) -> pa.Schema:
    """Return the columns name, id, label, label_id, split, embedding, and the metadata of a file.

    Args:
        width: Embedding size D.
        distance: Class name of the distance.
        threshold: Distance up to which two samples count as the same; None if there is none.
        model: Fingerprint of the encoder, see :func:`metric_module.storage.weights.fingerprint`; None if unknown.
    """
    about = {"embedding_dim": str(width), "distance": distance} | ({} if model is None else {"model": model})
    if threshold is not None:
        about["threshold"] = repr(threshold)
    words, numbers = pa.string(), pa.int64()
    fields = [("name", words), ("id", numbers), ("label", words), ("label_id", numbers), ("split", words)]
    return pa.schema([*fields, ("embedding", pa.list_(pa.float32(), width))], metadata=about)


def write_batches(path: Path, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file. Equal content makes equal files, byte for byte.

    Arrow and Parquet are written batch by batch; npz needs the whole content in memory.

    Args:
        path: The file.
        kind: ``arrow`` (IPC file, not compressed, for memory maps), ``parquet`` or ``npz``.
        schema: From :func:`file_schema`.
        batches: The rows.
    """
    _WRITE[kind](path, schema, batches)


def _write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    # Dictionaries and compression only cost time for floats that are all different.
    kinds = dict.fromkeys(schema.names, "snappy") | {"embedding": "none"}
    with parquet.ParquetWriter(path, schema, use_dictionary=["label", "split"], compression=kinds) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_npz(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    table = pa.Table.from_batches(batches, schema)
    columns = {name: table[name].to_numpy() for name in ("id", "label_id")}
    columns |= {name: np.array(table[name].fill_null("").to_pylist()) for name in ("name", "label", "split")}
    rows = np.concatenate([chunk.flatten().to_numpy() for chunk in table["embedding"].chunks])
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    with path.open("wb") as file:
        np.savez(file, **columns, embedding=rows.reshape(len(table), -1), metadata=np.array(json.dumps(about)))


_WRITE = {"arrow": _write_arrow, "parquet": _write_parquet, "npz": _write_npz}


def read_embeddings(path: Path) -> EmbeddingFile:
    """Read a file of embeddings, which may come from a stranger.

    Columns, types and lengths are checked; values of embeddings are checked where they are used.

    Args:
        path: ``.arrow``, which is memory-mapped, ``.parquet`` or ``.npz``.

    Raises:
        UserError: If the file is missing, broken, or has other columns or types.
    """
    kind = check_kind(path)
    try:
        path.open("rb").close()  # the readers of pyarrow have messages of their own for a missing file
        table = {"arrow": _read_arrow, "parquet": parquet.read_table, "npz": _read_npz}[kind](path)
        for name in ("name", "label"):
            if not (pa.types.is_string(kind := table.schema.field(name).type) or pa.types.is_large_string(kind)):
                raise ValueError(f"column {name}: expected strings, got {kind}")
            table[name].validate(full=True)
        if table["name"].null_count:
            raise ValueError(f"column name: expected a name in every row, got {table['name'].null_count} without")
        width, parts = _vectors(table)
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        threshold = float(about["threshold"]) if "threshold" in about else None
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"threshold: expected a finite number, got {threshold}")
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UserError(f"{path}: cannot read embeddings ({printable(said)})") from error
    return EmbeddingFile(
        table["name"], table["label"], parts, width, about.get("distance"), threshold, about.get("model")
    )


def check_kind(path: Path) -> str:
    """Return the format that a file name ends with: ``arrow``, ``parquet`` or ``npz``.

    Raises:
        UserError: If it is none of them.
    """
    kind = path.suffix[1:]
    if kind not in _WRITE:
        raise UserError(f"{path}: expected a name that ends with .arrow, .parquet or .npz, got {path.suffix!r}")
    return kind


def _read_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _read_npz(path: Path) -> pa.Table:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        rows, about = file["embedding"], json.loads(str(file["metadata"]))
        if rows.ndim != 2 or rows.dtype != np.float32 or not isinstance(about, dict):
            raise ValueError(f"embedding: expected float32 of shape [N, D], got {rows.dtype} {list(rows.shape)}")
        columns = [pa.array(file["name"]), pa.array([label or None for label in file["label"].tolist()], pa.string())]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1]))
    fields = zip(("name", "label", "embedding"), (column.type for column in columns), strict=True)
    return pa.table(columns, pa.schema(fields, metadata={key: str(value) for key, value in about.items()}))


def _vectors(table: pa.Table) -> tuple[int, list[Tensor]]:
    """Return D, and the embeddings as tensors ``(n, D)`` that share the table's memory."""
    column = table["embedding"]
    if (
        not pa.types.is_fixed_size_list(column.type)
        or column.type.value_type != pa.float32()
        or column.type.list_size < 1
    ):
        raise ValueError(f"column embedding: expected lists of float32 of one length, got {column.type}")
    column.validate(full=True)
    width, chunks = column.type.list_size, [chunk for chunk in column.chunks if len(chunk)]
    if any(chunk.null_count or chunk.flatten().null_count for chunk in chunks):
        raise ValueError("column embedding: expected a number in every place, got nulls")
    return width, [torch.utils.dlpack.from_dlpack(chunk.flatten()).view(-1, width) for chunk in chunks]
