"""Tables of millions of rows in Arrow's buffers: no Python object for a row, and nothing that workers would copy.

Legend: N rows, C distinct values.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".data": "\t"}
PARQUET = (".parquet", ".pq")
BLOCK = 1 << 24
SHOWN = 20


class Strings(Sequence[str]):
    """The values of a column as strings, made one at a time.

    Args:
        column: Strings or integers, N.
        folder: Put before each, as of a relative path; None leaves them.

    Example:
        >>> strings = Strings(pa.chunked_array([["a.png"], ["b.png", "c.png"]]), "images")
        >>> len(strings), strings[1], list(strings[1:])
        (3, 'images/b.png', ['images/b.png', 'images/c.png'])
    """

    def __init__(self, column: pa.ChunkedArray | pa.Array, folder: str | None = None) -> None:
        self.column = column
        self.folder = folder

    @override
    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Strings: ...

    @override
    def __getitem__(self, row: int | slice) -> str | Strings:
        if isinstance(row, slice):
            return Strings(self.column[row], self.folder)
        text = str(self.column[row].as_py())
        return text if self.folder is None else os.path.join(self.folder, text)  # noqa: PTH118  # for each of millions


class Encoded(NamedTuple):
    """A column as numbers.

    Attributes:
        codes: Place of each row's value among the distinct ones, int64 ``(N,)``.
        values: The distinct values, ascending, C.
    """

    codes: Tensor
    values: pa.Array


def read_table(
    path: str | Path,
    words: Sequence[str],
    others: Sequence[str] = (),
    *,
    names: Sequence[str] | None = None,
    setting: str = "datamodule.table",
) -> pa.Table:
    """Read some columns of a CSV, TSV or Parquet file. Of a CSV, every value is a string, and an empty one is missing.

    Args:
        path: The file.
        words: Columns of values that come again and again, which are kept once.
        others: More columns.
        names: Of the columns of a text that does not begin with them.
        setting: What names the file, for messages.

    Raises:
        UserError: The file is missing or no such table, or has no rows, or not one column of each name.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in {*SEPARATORS, *PARQUET}:
        raise UserError(f"{setting}: expected a file of {', '.join([*SEPARATORS, *PARQUET])}, got {path}")
    if not Path(path).is_file():
        raise UserError(f"{setting}: no such file: {path}")
    words, others = list(dict.fromkeys(words)), [name for name in dict.fromkeys(others) if name not in words]
    try:
        if suffix in PARQUET:
            schema = parquet.read_schema(path)
            _check_columns(f"{setting}: {path}", schema.names, [*words, *others])
            table = _read_parquet(path, words, others, schema)
        else:
            known = _header(path) if names is None else names
            _check_columns(f"{setting}: {path}", known, [*words, *others])
            table = _read_csv(path, words, others, known, skip=1 if names is None else 0)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{setting}: cannot read {path} ({str(error).splitlines()[0]})") from None
    if not len(table):
        raise UserError(f"{setting}: {path} has no rows")
    return table


def encode(column: pa.ChunkedArray, where: str) -> Encoded:
    """Number the distinct values of a column, in their order.

    Args:
        column: Strings or integers, of any width, N.
        where: How to name the column in a message.

    Raises:
        UserError: A value is missing, or they are of another type.

    Example:
        >>> encode(pa.chunked_array([["b", "a"], ["b"]]), "label").codes.tolist()
        [1, 0, 1]
    """
    refuse_missing(column, where)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{where}: expected strings or integers, got {kind}")
    column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = np.empty(len(column), dtype=np.int64)  # (N,)
    start = 0
    for chunk in column.chunks:
        codes[start : start + len(chunk)] = chunk.indices.to_numpy()
        start += len(chunk)
    values = column.chunk(0).dictionary  # (C',), some perhaps of no row
    used = np.zeros(len(values), dtype=np.bool_)
    used[codes] = True
    order = pc.sort_indices(values).to_numpy()
    order = order[used[order]]  # (C,)
    rank = np.zeros(len(values), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return Encoded(torch.from_numpy(rank[codes]), values.take(pa.array(order)))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def refuse_missing(column: pa.ChunkedArray, where: str) -> None:
    """Accept a column without gaps.

    Raises:
        UserError: Naming the rows without a value.
    """
    if column.null_count:
        rows = np.flatnonzero(pc.is_null(column).to_numpy())
        raise UserError(f"{where}: no value in {rows_in_words(rows)}")


def rows_in_words(rows: npt.NDArray[np.integer[Any]] | Tensor) -> str:
    """Numbers of rows, the first twenty: ``2 rows (from 0): 4, 7``."""
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return f"{len(rows):,} rows (from 0): {', '.join(map(str, rows[:SHOWN].tolist()))}{more}"


def numbers(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.float64]:
    """A column as float64 ``(N,)``.

    Raises:
        UserError: A value is missing, or is no number.
    """
    refuse_missing(column, where)
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy())
    except pa.ArrowException as error:
        raise UserError(f"{where}: expected numbers ({str(error).splitlines()[0]})") from None


def whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as integers if all of its values are, so that 9 comes before 10; else as it is."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        return plain.cast(pa.int64())
    except pa.ArrowException:
        return column


def _header(path: str | Path) -> list[str]:
    """Names of the columns; of ``.inter`` files they are followed by a colon and a type."""
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=SEPARATORS[Path(path).suffix.lower()]), [])
    return [name.partition(":")[0] for name in names] if Path(path).suffix.lower() == ".inter" else names


def _read_csv(
    path: str | Path, words: Sequence[str], others: Sequence[str], names: Sequence[str], skip: int
) -> pa.Table:
    types = dict.fromkeys(words, pa.dictionary(pa.int32(), pa.string())) | dict.fromkeys(others, pa.string())
    return arrow_csv.read_csv(
        path,
        arrow_csv.ReadOptions(block_size=BLOCK, column_names=list(names), skip_rows=skip),
        arrow_csv.ParseOptions(delimiter=SEPARATORS[Path(path).suffix.lower()], newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=types, include_columns=[*words, *others], strings_can_be_null=True, null_values=[""]
        ),
    )


def _read_parquet(path: str | Path, words: Sequence[str], others: Sequence[str], schema: pa.Schema) -> pa.Table:
    kept_once = [name for name in words if is_text(schema.field(name).type)]
    with parquet.ParquetFile(path, read_dictionary=kept_once) as file:
        return file.read(columns=[*words, *others])


def _check_columns(where: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if found.count(name) != 1:
            many = f"{found.count(name)} columns" if name in found else "no column"
            raise UserError(f"{where} has {many} {name!r}, only {', '.join(found) or 'an empty line'}")
