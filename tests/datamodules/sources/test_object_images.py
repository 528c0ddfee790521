"""Tests of images in an object store: the same batches as from local files, ahead of need, and mistakes in one line."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import csv, parquet

from datamodules import ManifestDataModule
from datamodules.sources.object_images import ObjectImages
from datamodules.sources.paths import Paths
from metric_module.errors import UserError
from tests.helpers.object_server import ObjectServer
from tests.helpers.stored_pictures import assert_equal, batches, folder, manifest, table_of


def test_a_folder_over_http_gives_the_batches_of_local_files(
    pictures: Path, server: ObjectServer, tmp_path: Path
) -> None:
    """First in this process, then in two workers, which must not use the file system of this one."""
    local = folder(pictures, tmp_path / "one")
    expected = batches(local)
    remote = folder(f"{server.address}/pictures", tmp_path / "two")
    assert_equal(batches(remote), expected)
    assert remote.fingerprint == local.fingerprint
    read = [request for request in server.requests if request.startswith("GET") and request.endswith("png")]
    assert len(read) == len(set(read)) and len(read) >= 12
    remote.num_workers = 2
    (tmp_path / "two/objects/.total").unlink()
    for path in (tmp_path / "two/objects").iterdir():
        path.unlink()
    assert_equal(batches(remote), expected)
    server.fail = lambda path: 503  # everything is in the cache now
    assert_equal([*remote.train_dataloader()], [*local.train_dataloader()])


def test_resume_reads_the_same_batches(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    expected = batches(folder(pictures, tmp_path / "one"))
    for cache in ("warm", "warm", "cold"):
        data = folder(f"{server.address}/pictures", tmp_path / cache, preflight=False)
        data.load_state_dict({"epoch": 0, "step": 1})
        data.setup("fit")
        assert_equal([*data.train_dataloader(), *data.test_dataloader()], expected[1:])


def test_an_archive_on_disk_and_a_table_in_it(pictures: Path, tmp_path: Path) -> None:
    parquet.write_table(pa.table(table_of(pictures)), pictures.parent / "table.parquet")
    csv.write_csv(pa.table(table_of(pictures)), pictures.parent / "table.csv")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in [*tmp_path.glob("table.*"), *pictures.rglob("*.png")]:
            made.write(path, path.relative_to(tmp_path))
    expected = batches(folder(pictures, tmp_path))
    assert_equal(batches(folder(f"zip://pictures::{archive}", tmp_path)), expected)
    for kind in ("parquet", "csv"):
        data = manifest(f"zip://table.{kind}::{archive}", tmp_path)
        assert_equal(batches(data), expected)
        assert data.names_of([0]) == ["a b/0 x.png"]
    assert not (tmp_path / "objects").exists()  # a local archive needs no copies


def test_a_table_is_read_once_and_missing_objects_are_named(
    pictures: Path, server: ObjectServer, tmp_path: Path
) -> None:
    csv.write_csv(pa.table(table_of(pictures)), pictures.parent / "table.csv")
    data = manifest(f"{server.address}/table.csv", tmp_path)
    (pictures / "c/2 x.png").unlink()
    (pictures / "d/1 x.png").write_bytes(b"")
    missing = f"{server.address}/pictures/c/2%20x.png"
    expected = rf"^data: 2 objects that cannot be used: {missing} \(row 10: no such object\), .*\(row 13: 0 bytes\)$"
    with pytest.raises(UserError, match=expected):
        data.prepare_data()
    assert [request for request in server.requests if "GET" in request and "csv" in request] == ["GET /table.csv"]
    with pytest.raises(UserError, match=rf"^data: cannot read {missing} \(row 10: no such object\)$"):
        [*manifest(f"{server.address}/table.csv", tmp_path, preflight=False).eval_dataloader("all")]
    with pytest.raises(
        UserError, match=rf"^datamodule\.table: cannot read {server.address}/t\.csv \(no such object\)$"
    ):
        manifest(f"{server.address}/t.csv", tmp_path).setup("fit")
    with pytest.raises(UserError, match=rf"^datamodule\.root: {server.address}/none: expected a folder of images"):
        folder(f"{server.address}/none", tmp_path).setup("fit")


def test_a_store_that_does_not_answer_replaces_no_sample(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    data = folder(f"{server.address}/pictures", tmp_path, preflight=False, on_bad_sample="replace")
    data.setup("fit")
    server.fail = lambda path: 500
    with pytest.raises(UserError, match=r"^data: cannot read http://.*png after 3 tries in 0 seconds or more"):
        next(iter(data.train_dataloader()))
    (tmp_path / "objects").write_text("")
    server.fail = lambda path: 0
    with pytest.raises(UserError, match=r"^datamodule\.cache_dir: cannot write .*objects \("):
        next(iter(data.train_dataloader()))
    assert data.replaced == 0
    (tmp_path / "objects").unlink()
    server.fail = lambda path: 404 if "0%20x" in path else 0
    data.setup("fit")
    assert len([*data.train_dataloader()]) > 0 and data.replaced > 0


@pytest.mark.parametrize("setting", ["root", "table"])
def test_a_password_in_an_address_is_refused(setting: str, tmp_path: Path) -> None:
    settings = {"table": "a.csv", "image": "a"} | {setting: "https://me:hunter2@host/a.csv"}
    with pytest.raises(UserError, match=rf"^datamodule\.{setting}: expected an address without user name and password"):
        ManifestDataModule(**settings)  # type: ignore[arg-type]


def test_a_damaged_copy_is_fetched_again(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    images = ObjectImages(
        Paths([f"{server.address}/pictures/c/{number}%20x.png" for number in range(4)]), 8, str(tmp_path)
    )
    expected = images(torch.arange(4))
    for number in range(4):
        images.cache.path_of(images.paths[number]).write_bytes(b"half a picture")
    assert torch.equal(images(torch.arange(4)), expected) and len(server.requests) == 8
    (pictures / "c/1 x.png").write_bytes(b"no picture")
    assert images.problems({}) == []  # not read, but its size differs: the copy goes
    shown = images.show([0, 1])
    assert isinstance(shown[0], Image.Image) and shown[1] == "1%20x.png"


def test_objects_of_a_batch_are_fetched_together(pictures: Path, server: ObjectServer, tmp_path: Path) -> None:
    files = [f"{server.address}/pictures/{name}/{number}%20x.png" for name in ("c", "d") for number in range(4)]
    images = ObjectImages(Paths(files), 8, str(tmp_path))
    together = Barrier(8, timeout=30)

    def wait(path: str) -> int:
        together.wait()
        return 0

    server.fail = wait
    images(torch.arange(8))
    before = len(server.requests)
    images.prefetch(torch.tensor([0, 1]))
    assert len(images(torch.tensor([0, 1]))) == 2 and len(server.requests) == before
    assert re.fullmatch(r"\d+", (tmp_path / "objects/.total").read_text())


def test_what_the_common_request_did_not_get_is_requested_alone(
    pictures: Path, server: ObjectServer, tmp_path: Path
) -> None:
    files = [f"{server.address}/pictures/c/{number}%20x.png" for number in range(4)]
    expected = ObjectImages(Paths(files), 8, str(tmp_path / "one"))(torch.arange(4))
    asked: set[str] = set()

    def once(path: str) -> int:
        first = path not in asked
        asked.add(path)
        return 503 if first and "2%20x" not in path else 0

    server.fail, server.requests[:] = once, []
    assert torch.equal(ObjectImages(Paths(files), 8, str(tmp_path / "two"))(torch.arange(4)), expected)
    assert len(server.requests) == 4 + 3 and len(asked) == 4
