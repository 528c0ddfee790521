"""Columns of millions of rows in Arrow's buffers: no Python object for a row, and nothing that workers would copy.

Legend: N rows, C distinct values.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError

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


def encode_labels(column: pa.ChunkedArray, where: str) -> Encoded:
    """:func:`encode` labels, all of which must say something.

    Args:
        column: As there.
        where: As there.

    Raises:
        UserError: As there, and naming the rows with an empty string.
    """
    codes, values = encode(column, where)
    if str(values[0].as_py()) == "":
        raise UserError(f"{where}: an empty label in {rows_in_words((codes == 0).nonzero()[:, 0])}")
    return Encoded(codes, values)


def rows_in_words(rows: npt.NDArray[np.integer[Any]] | Tensor) -> str:
    """Numbers of rows, the first twenty: ``2 rows (from 0): 4, 7``."""
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return f"{len(rows):,} rows (from 0): {', '.join(map(str, rows[:SHOWN].tolist()))}{more}"


def numbers(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.float64]:
    """A column as float64 ``(N,)``.

    Raises:
        UserError: A value is missing, or is no number; NaN is none.
    """
    refuse_missing(column, where)
    try:
        found = np.asarray(column.cast(pa.float64()).to_numpy())
    except pa.ArrowException as error:
        raise UserError(f"{where}: expected numbers ({str(error).splitlines()[0]})") from None
    missing = np.flatnonzero(np.isnan(found))
    if len(missing):
        raise UserError(f"{where}: NaN in place of a value in {rows_in_words(missing)}")
    return found


def whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as integers if all of its values are, so that 9 comes before 10; else as it is."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        return plain.cast(pa.int64())
    except pa.ArrowException:
        return column
