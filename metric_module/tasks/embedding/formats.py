"""Files of embeddings: Arrow, Parquet and npz with the same columns.

Legend: N samples, n samples of a block, D = embedding size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from metric_module.tasks.embedding.names import Naming
from metric_module.tasks.embedding.shards import Shards


def write_file(path: Path, kind: str, shards: Shards, naming: Naming, about: Mapping[str, str]) -> None:
    """Write one row for each sample, in order of id: name, id, label, label_id, split, embedding.

    Arrow and Parquet are written block by block; npz needs the whole content in memory. Equal content makes equal
    files, byte for byte.

    Args:
        path: The file.
        kind: ``arrow`` (IPC file, not compressed, for memory maps), ``parquet`` or ``npz``.
        shards: Ids, labels and embeddings.
        naming: Text columns.
        about: Metadata of the file.
    """
    words, numbers = pa.string(), pa.int64()
    fields = [("name", words), ("id", numbers), ("label", words), ("label_id", numbers), ("split", words)]
    schema = pa.schema([*fields, ("embedding", pa.list_(pa.float32(), shards.width))], metadata=dict(about))
    write = {"arrow": _write_arrow, "parquet": _write_parquet, "npz": _write_npz}[kind]
    write(path, schema, _batches(schema, shards, naming))


def _batches(schema: pa.Schema, shards: Shards, naming: Naming) -> Iterator[pa.RecordBatch]:
    for block in shards.blocks():
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(block.embeddings.reshape(-1)), shards.width)
        ids, labels = pa.array(block.ids), pa.array(block.labels)
        columns = [naming.names(block), ids, naming.labels(block), labels, naming.splits(block), embeddings]
        yield pa.record_batch(columns, schema=schema)


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
