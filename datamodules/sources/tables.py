"""Columns of tables in files of CSV, TSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from datamodules.sources.columns import is_text
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
            _check_separator(f"{setting}: {path}", known, SEPARATORS[suffix])
            _check_columns(f"{setting}: {path}", known, [*words, *others])
            table = _read_csv(path, words, others, known, skip=1 if names is None else 0)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason:
            raise UserError(f"{setting}: {path}: expected text in UTF-8 ({reason})") from None
        raise UserError(f"{setting}: cannot read {path} ({reason})") from None
    if not len(table):
        raise UserError(f"{setting}: {path} has no rows")
    return table


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


def _check_separator(where: str, found: Sequence[str], separator: str) -> None:
    other = next((mark for mark in MARKS if len(found) == 1 and mark in found[0]), None)
    if other is not None:
        raise UserError(f"{where}: expected {MARKS[separator]} between columns, got {MARKS[other]} in {found[0]!r}")


def _check_columns(where: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if found.count(name) != 1:
            many = f"{found.count(name)} columns" if name in found else "no column"
            raise UserError(f"{where} has {many} {name!r}, only {', '.join(found) or 'an empty line'}")
