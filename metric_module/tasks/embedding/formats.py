"""Write the file of ``task=embed``.

Legend: n samples of a block, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from metric_module.storage.embedding_file import file_schema, write_batches
from metric_module.tasks.embedding.names import Naming
from metric_module.tasks.embedding.shards import Shards


def write_file(
    path: Path,
    kind: str,
    shards: Shards,
    naming: Naming,
    distance: str,
    threshold: float | None,
    model: str | None = None,
) -> None:
    """Write one row for each sample, in order of id, block by block.

    Args:
        path: The file.
        kind: ``arrow``, ``parquet`` or ``npz``.
        shards: Ids, labels and embeddings.
        naming: Text columns.
        distance: Class name of the distance.
        threshold: Distance up to which two samples count as the same; None if there is none.
        model: Fingerprint of the encoder; None if it is not known.
    """
    schema = file_schema(shards.width, distance, threshold, model)
    write_batches(path, kind, schema, _batches(schema, shards, naming))


def _batches(schema: pa.Schema, shards: Shards, naming: Naming) -> Iterator[pa.RecordBatch]:
    for block in shards.blocks():
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(block.embeddings.reshape(-1)), shards.width)
        ids, labels = pa.array(block.ids), pa.array(block.labels)
        columns = [naming.names(block), ids, naming.labels(block), labels, naming.splits(block), embeddings]
        yield pa.record_batch(columns, schema=schema)
