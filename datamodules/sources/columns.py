"""Columns of tables in Arrow buffers: without a Python object per row, millions of rows stay small.

Legend: N = rows, C = distinct values.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.messages import reason_of, rows_in_words
from datamodules.sources.addresses import is_address, join
from metric_module.errors import UserError


class Strings(Sequence[str]):
    """Values of a column as strings, each created when it is read.

    Args:
        column: Strings or integers, N.
        folder: Folder, or address of one, to prepend to each value, a relative path; None: values as they are.

    Example:
        >>> strings = Strings(pa.chunked_array([["a.png"], ["b.png", "c.png"]]), "images")
        >>> len(strings), strings[1], list(strings[1:])
        (3, 'images/b.png', ['images/b.png', 'images/c.png'])
    """

    def __init__(self, column: pa.ChunkedArray | pa.Array, folder: str | None = None) -> None:
        self.column = column
        self.folder = folder
        self._join = join if folder is not None and is_address(folder) else os.path.join

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
        return text if self.folder is None else self._join(self.folder, text)


class Encoded(NamedTuple):
    """A column as codes.

    Attributes:
        codes: Index of each row's value among the distinct values, int64 ``(N,)``.
        values: The distinct values, ascending, C.
    """

    codes: Tensor
    values: pa.Array


def encode(column: pa.ChunkedArray, where: str) -> Encoded:
    """Number the distinct values of a column in ascending order.

    Args:
        column: Strings or integers, of any width, N.
        where: Name of the column, for messages.

    Raises:
        UserError: A value is missing, or the column has another type.

    Example:
        >>> encode(pa.chunked_array([["b", "a"], ["b"]]), "label").codes.tolist()
        [1, 0, 1]
    """
    refuse_missing(column, where)
    kind = value_type(column.type)
    if not (is_text(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{where}: expected strings or integers, got {kind}")
    column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks], dtype=np.int64)  # (N,)
    values = column.chunk(0).dictionary  # (C',), some perhaps without a row
    used = np.zeros(len(values), dtype=np.bool_)
    used[codes] = True
    order = pc.sort_indices(values).to_numpy()
    order = order[used[order]]  # (C,)
    code = np.zeros(len(values), dtype=np.int64)
    code[order] = np.arange(len(order))
    return Encoded(torch.from_numpy(code[codes]), values.take(pa.array(order)))


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column, which may be dictionary-encoded."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def refuse_missing(column: pa.ChunkedArray, where: str) -> None:
    """Accept a column without missing values.

    Args:
        column: The column.
        where: Name of the column, for the message.

    Raises:
        UserError: Lists the rows without a value.
    """
    if column.null_count:
        rows = np.flatnonzero(pc.is_null(column).to_numpy())
        raise UserError(f"{where}: no value in {rows_in_words(rows)}")


def encode_labels(column: pa.ChunkedArray, where: str) -> Encoded:
    """Number the distinct labels of a column as :func:`encode` does, and refuse empty ones.

    Args:
        column: Strings or integers, of any width, N.
        where: Name of the column, for messages.

    Raises:
        UserError: A label is missing or empty, or the column has another type.
    """
    codes, values = encode(column, where)
    if str(values[0].as_py()) == "":
        raise UserError(f"{where}: an empty label in {rows_in_words((codes == 0).nonzero()[:, 0])}")
    return Encoded(codes, values)


def unlabelled(count: int) -> Encoded:
    """Return the codes of samples that have no label, all -1."""
    return Encoded(torch.full((count,), -1), pa.array([], pa.string()))


def encode_known(column: pa.ChunkedArray, where: str) -> Encoded:
    """Number the distinct labels of a column as :func:`encode` does, with -1 for a missing or empty label.

    Args:
        column: Strings or integers, of any width, N.
        where: Name of the column, for messages.

    Raises:
        UserError: The column has another type.

    Example:
        >>> encode_known(pa.chunked_array([["b", None, "a", ""]]), "label").codes.tolist()
        [1, -1, 0, -1]
    """
    plain = column.cast(value_type(column.type))
    known = pc.is_valid(plain)
    if is_text(plain.type):
        known = pc.and_(known, pc.fill_null(pc.not_equal(plain, ""), False))
    rows = torch.from_numpy(known.to_numpy(zero_copy_only=False) if isinstance(known, pa.Array) else known.to_numpy())
    codes, values = unlabelled(len(plain))
    if rows.any():
        codes[rows], values = encode(plain.filter(known), where)
    return Encoded(codes, values)


def numbers(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.float64]:
    """Convert a column to float64 ``(N,)``.

    Args:
        column: The column.
        where: Name of the column, for messages.

    Raises:
        UserError: A value is missing, NaN, or not a number.
    """
    refuse_missing(column, where)
    try:
        found = np.asarray(column.cast(pa.float64()).to_numpy())
    except pa.ArrowException as error:
        raise UserError(f"{where}: expected numbers ({reason_of(error)})") from None
    missing = np.flatnonzero(np.isnan(found))
    if len(missing):
        raise UserError(f"{where}: NaN in place of a value in {rows_in_words(missing)}")
    return found


def whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to integers if all its values are, so that 9 comes before 10; otherwise return it unchanged."""
    try:
        return column.cast(value_type(column.type)).cast(pa.int64())
    except pa.ArrowException:
        return column
