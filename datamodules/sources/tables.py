"""Reading of selected columns from CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from datamodules.messages import reason_of
from datamodules.sources.addresses import is_address, suffix_of
from datamodules.sources.columns import is_text
from datamodules.sources.object_store import ObjectError, read
from metric_module.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".data": "\t"}
MARKS = {",": "a comma", "\t": "a tab", ";": "a semicolon"}
PARQUET = (".parquet", ".pq")
BLOCK = 1 << 24


def read_table(
    path: str | Path,
    words: Sequence[str],
    others: Sequence[str] = (),
    *,
    optional: Sequence[str] = (),
    names: Sequence[str] | None = None,
    setting: str = "datamodule.table",
) -> pa.Table:
    """Read some columns of a CSV, TSV or Parquet file. In a CSV every value is a string, and an empty one is missing.

    Args:
        path: The file, or its address; it is read once.
        words: Columns of values that repeat; each distinct value is stored once.
        others: More columns.
        optional: Those among ``words`` that the table may lack.
        names: Column names of a text file without a header.
        setting: Setting that names the file, for messages.

    Raises:
        UserError: The file is missing, is not such a table or has no rows, or a column is missing or there twice.
    """
    suffix = suffix_of(str(path))
    if suffix not in {*SEPARATORS, *PARQUET}:
        raise UserError(f"{setting}: expected a file of {', '.join([*SEPARATORS, *PARQUET])}, got {path}")
    file = _fetched(str(path), setting)
    words, others = list(dict.fromkeys(words)), [name for name in dict.fromkeys(others) if name not in words]
    try:
        if suffix in PARQUET:
            words = _without(words, optional, parquet.read_schema(_opened(file)).names)
            table = _read_parquet(file, words, others, f"{setting}: {path}")
        else:
            header = _header(file, suffix) if optional else []
            table = _read_csv(file, suffix, _without(words, optional, header), others, names, f"{setting}: {path}")
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        reason = reason_of(error)
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason:
            raise UserError(f"{setting}: {path}: expected text in UTF-8 ({reason})") from None
        raise UserError(f"{setting}: cannot read {path} ({reason})") from None
    if not len(table):
        raise UserError(f"{setting}: {path} has no rows")
    return table


def _without(words: Sequence[str], optional: Sequence[str], found: Sequence[str]) -> list[str]:
    """Remove the optional columns that a table lacks."""
    return [name for name in words if name in found or name not in optional]


def _fetched(path: str, setting: str) -> Path | pa.Buffer:
    """Return a local file as it is, and the content of an object."""
    try:
        if is_address(path):
            return pa.py_buffer(read(path))
    except ObjectError as error:
        raise UserError(f"{setting}: cannot read {path} ({error})") from None
    if not Path(path).is_file():
        raise UserError(f"{setting}: no such file: {path}")
    return Path(path)


def _opened(file: Path | pa.Buffer) -> Path | pa.BufferReader:
    return file if isinstance(file, Path) else pa.BufferReader(file)


def _header(file: Path | pa.Buffer, suffix: str) -> list[str]:
    """Read the names of the columns; in ``.inter`` files a colon and a type follow each name."""
    binary = file.open("rb") if isinstance(file, Path) else io.BytesIO(file)
    with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
        names = next(csv.reader(text, delimiter=SEPARATORS[suffix]), [])
    return [name.partition(":")[0] for name in names] if suffix == ".inter" else names


def _read_csv(
    file: Path | pa.Buffer,
    suffix: str,
    words: Sequence[str],
    others: Sequence[str],
    names: Sequence[str] | None,
    where: str,
) -> pa.Table:
    header = _header(file, suffix) if names is None else list(names)
    _check_separator(where, header, SEPARATORS[suffix])
    _check_columns(where, header, [*words, *others])
    types = dict.fromkeys(words, pa.dictionary(pa.int32(), pa.string())) | dict.fromkeys(others, pa.string())
    return arrow_csv.read_csv(
        _opened(file),
        arrow_csv.ReadOptions(block_size=BLOCK, column_names=header, skip_rows=1 if names is None else 0),
        arrow_csv.ParseOptions(delimiter=SEPARATORS[suffix], newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=types, include_columns=[*words, *others], strings_can_be_null=True, null_values=[""]
        ),
    )


def _read_parquet(file: Path | pa.Buffer, words: Sequence[str], others: Sequence[str], where: str) -> pa.Table:
    schema = parquet.read_schema(_opened(file))
    _check_columns(where, schema.names, [*words, *others])
    repeated = [name for name in words if is_text(schema.field(name).type)]
    with parquet.ParquetFile(_opened(file), read_dictionary=repeated) as opened:
        return opened.read(columns=[*words, *others])


def _check_separator(where: str, found: Sequence[str], separator: str) -> None:
    other = next((mark for mark in MARKS if len(found) == 1 and mark in found[0]), None)
    if other is not None:
        raise UserError(f"{where}: expected {MARKS[separator]} between columns, got {MARKS[other]} in {found[0]!r}")


def _check_columns(where: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if found.count(name) != 1:
            many = f"{found.count(name)} columns" if name in found else "no column"
            raise UserError(f"{where} has {many} {name!r}, only {', '.join(found) or 'an empty line'}")
