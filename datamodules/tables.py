"""Columns of a CSV, TSV or Parquet file.

Legend: n rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metric_module.errors import UserError


def read_table(
    path: Path, columns: Sequence[str], *, delimiter: str | None = None, names: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """Read some columns of a table.

    Args:
        path: A Parquet file if its name ends so, else text with a line of names.
        columns: Which; what follows a colon in the file's own name of a column is its type, and not looked at.
        delimiter: Between the values; None: a comma in ``.csv``, else a tab.
        names: Of the columns of a text that does not begin with them.

    Returns:
        A pyarrow array by name.

    Raises:
        UserError: If the file cannot be read, or lacks a column.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        else:
            read = csv.ReadOptions(column_names=None if names is None else list(names))
            between = delimiter or ("," if path.suffix == ".csv" else "\t")
            table = csv.read_csv(path, read, csv.ParseOptions(delimiter=between))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot read this table ({str(error).splitlines()[0]})") from None
    table = table.rename_columns([name.partition(":")[0] for name in table.column_names])
    for column in columns:
        if column not in table.column_names:
            raise UserError(f"{path}: expected a column {column!r}, got {', '.join(table.column_names)}")
        if table[column].null_count:
            raise UserError(
                f"{path}: expected a value in every row of {column!r}, got none in {table[column].null_count}"
            )
    return {column: table[column].combine_chunks() for column in columns}


def numbers(path: Path, name: str, column: Any) -> np.ndarray[Any, Any]:
    """A column as float64 ``(n,)``.

    Raises:
        UserError: If it holds anything else.
    """
    import pyarrow as pa

    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowException as error:
        raise UserError(f"{path}: expected numbers in {name!r} ({str(error).splitlines()[0]})") from None


def codes(column: Any) -> tuple[Tensor, Any]:
    """Number the different values of a column from 0, in their own order, which no order of rows changes.

    Returns:
        The number of each row's value, int64 ``(n,)``, and the values, a pyarrow array.
    """
    import pyarrow.compute as pc

    encoded = column.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()  # (values,)
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=order.dtype)
    rows = place[encoded.indices.to_numpy(zero_copy_only=False)]
    return torch.from_numpy(rows.astype(np.int64)), encoded.dictionary.take(order)
