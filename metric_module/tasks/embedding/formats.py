"""The files that ``task=embed`` writes, a block at a time.

Legend: N samples, D = embedding size, C = labels up to the largest, n samples of a block.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metric_module.tasks.embedding.shards import Block, Integers, Shares

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("npz", "parquet")

SplitOf = Callable[[Integers], npt.NDArray[np.str_]]


def write_npz(path: Path, shares: Shares, names: Sequence[str] | None = None, split_of: SplitOf | None = None) -> None:
    """Write ``ids``, ``labels``, ``embeddings`` and, if known, ``class_names`` and ``splits``, uncompressed.

    The file is the same, byte for byte, whenever the content is. :func:`numpy.load` reads it, without pickle.

    Args:
        path: The file.
        shares: The samples.
        names: Name of each label, from 0; None leaves them out.
        split_of: The split of each of some ids; None leaves them out.
    """
    count = len(shares.ids)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "ids", np.dtype(np.int64), (count,), [shares.ids])
        _add(archive, "labels", np.dtype(np.int64), (count,), [shares.labels])
        embeddings = (block.embeddings for block in shares.blocks())
        _add(archive, "embeddings", np.dtype(np.float32), (count, shares.width), embeddings)
        if names is not None:
            told = np.array(names, dtype=np.str_)  # (C,)
            _add(archive, "class_names", told.dtype, told.shape, [told])
        if split_of is not None:
            kind = split_of(shares.ids[:1]).dtype
            _add(archive, "splits", kind, (count,), (split_of(ids) for ids in _pieces(shares.ids)))


def write_parquet(
    path: Path, shares: Shares, names: Sequence[str] | None = None, split_of: SplitOf | None = None
) -> None:
    """Write the same columns, the class name of each sample and not of each label, a row group a block.

    Args:
        path: The file.
        shares: The samples.
        names: Name of each label, from 0; None leaves them out.
        split_of: The split of each of some ids; None leaves them out.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = [("ids", pa.int64()), ("labels", pa.int64()), ("embeddings", pa.list_(pa.float32(), shares.width))]
    words = [name for name, known in (("class_names", names), ("splits", split_of)) if known is not None]
    schema = pa.schema([*columns, *((name, pa.string()) for name in words)])
    # A dictionary or a compression of floats that are all different only costs time.
    kinds = dict.fromkeys(("ids", "labels", *words), "snappy") | {"embeddings": "none"}
    with parquet.ParquetWriter(path, schema, use_dictionary=words, compression=kinds) as writer:
        for block in shares.blocks():
            writer.write_table(_table(block, schema, names, split_of))


def _table(
    block: Block, schema: pyarrow.Schema, names: Sequence[str] | None, split_of: SplitOf | None
) -> pyarrow.Table:
    import pyarrow as pa

    flat = pa.array(block.embeddings.reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, block.embeddings.shape[1])
    columns = [pa.array(block.ids), pa.array(block.labels), rows]
    if names is not None:
        columns.append(pa.array([names[label] for label in block.labels.tolist()], pa.string()))
    if split_of is not None:
        columns.append(pa.array(split_of(block.ids).tolist(), pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)


def _add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterable[npt.NDArray[Any]],
) -> None:
    """Append an array to an archive, piece by piece."""
    # A name without a date: the same content makes the same file.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data)


def _pieces(ids: Integers, step: int = 1 << 16) -> Iterator[Integers]:
    for start in range(0, len(ids), step):
        yield ids[start : start + step]
