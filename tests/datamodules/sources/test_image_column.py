"""Tests of columns of addresses and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet

from metric_module.errors import UserError
from tests.helpers.object_server import ObjectServer
from tests.helpers.stored_pictures import assert_equal, batches, folder, manifest, table_of


def test_checksums_of_a_table(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    rows = table_of(pictures)
    sums = [hashlib.sha256((pictures / file).read_bytes()).hexdigest().upper() for file in rows["file"]]
    sums[1], sums[2] = hashlib.md5((pictures / rows["file"][1]).read_bytes()).hexdigest(), ""
    parquet.write_table(pa.table(rows | {"sum": [*sums[:-1], None]}), pictures.parent / "table.parquet")
    address = f"{server.address}/table.parquet"
    assert_equal(batches(manifest(address, tmp_path, checksum="sum")), batches(folder(pictures, tmp_path)))
    damaged = sums[:5] + sums[6:] + [sums[5]]
    parquet.write_table(pa.table(rows | {"sum": damaged}), pictures.parent / "table.parquet")
    expected = rf"\(row 5: expected the checksum {damaged[5].lower()}, got {sums[5].lower()}\)$"
    with pytest.raises(UserError, match=expected):  # also of what is in the cache
        [*manifest(address, tmp_path, checksum="sum", preflight=False).eval_dataloader("all")]
    parquet.write_table(pa.table(rows | {"sum": ["12"] * 20}), pictures.parent / "table.parquet")
    with pytest.raises(
        UserError, match=r"column 'sum': expected MD5 or SHA-256, .* digits, got 20 rows \(from 0\): 0, "
    ):
        manifest(address, tmp_path, checksum="sum").setup("fit")
    parquet.write_table(pa.table(rows | {"sum": sums}), pictures.parent / "table.parquet")
    with pytest.raises(UserError, match=r"^datamodule\.checksum: expected images in an object store; files are read"):
        manifest(pictures.parent / "table.parquet", tmp_path, checksum="sum").setup("fit")
    with pytest.raises(UserError, match=r"^datamodule\.checksum: expected images in an object store, got no column"):
        manifest(address, tmp_path, checksum="sum", image=None, text="file")
    parquet.write_table(pa.table(rows | {"sum": [1] * 20}), pictures.parent / "table.parquet")
    with pytest.raises(UserError, match=r"column 'sum': expected strings, got int64$"):
        manifest(address, tmp_path, checksum="sum").setup("fit")


def test_equal_content_is_found_by_checksums(
    pictures: Path, server: ObjectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sums = [hashlib.md5(b"%d" % max(number, 1)).hexdigest() for number in range(18)] + ["", ""]
    parquet.write_table(pa.table(table_of(pictures, sum=sums)), pictures.parent / "table.parquet")
    data = manifest(f"{server.address}/table.parquet", tmp_path, checksum="sum", duplicates="drop")
    with caplog.at_level("INFO"):
        assert sorted(torch.cat(list(data.samples.splits.values())).tolist()) == [0, *range(2, 20)]
    assert "data: equal content is not found among 2 objects whose checksum neither the table nor" in caplog.text


def test_addresses_in_a_column(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    rows = table_of(pictures)
    addresses = [f"{server.address}/pictures/{file.replace('%', '%25')}?sig=hunter2" for file in rows["file"]]
    table = tmp_path / "table.csv"
    csv.write_csv(pa.table(rows | {"file": addresses}), table)
    data = manifest(table, tmp_path)
    assert_equal(batches(data), batches(folder(pictures, tmp_path)))
    assert "hunter2" not in str([data.item_names_of([0]), data.names_of([0]), data.samples.fetch.name_of(0)])  # type: ignore[attr-defined]
    csv.write_csv(pa.table(rows | {"file": [*addresses[:18], *rows["file"][18:]]}), table)
    with pytest.raises(
        UserError, match=r"expected addresses \(s3://\.\.\.\) in all rows or in none, got 2 rows .* 18, 19$"
    ):
        manifest(table, tmp_path).setup("fit")
    csv.write_csv(pa.table(rows | {"file": [*addresses[:19], "s3://me:hunter2@bucket/a"]}), table)
    with pytest.raises(
        UserError, match=r"expected addresses without user name and password, got 1 rows .*: 19$"
    ) as found:
        manifest(table, tmp_path).setup("fit")
    assert "hunter2" not in str(found.value)
