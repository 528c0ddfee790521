"""Tests against a server of S3's interface, in this process."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from datamodules import ImageFolderDataModule, ManifestDataModule
from datamodules.sampling.dataset import StoreError
from datamodules.sources.object_store import read
from metric_module.errors import UserError
from tests.helpers.command_line import command_in
from tests.helpers.stored_pictures import folder

pytestmark = pytest.mark.integration

SECRET = "hunter2hunter2"


@pytest.fixture
def bucket(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with the pictures, and a client."""
    import boto3
    from fsspec import get_filesystem_class
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("datamodules.sources.object_store._opened", {})
    get_filesystem_class("s3").clear_instance_cache()  # of the server of another test
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    for path in sorted(pictures.glob("*/*.png")):
        client.upload_file(str(path), "data", f"pictures/{path.parent.name}/{path.name}")
    yield client
    for one in client.list_objects_v2(Bucket="data")["Contents"]:
        client.delete_object(Bucket="data", Key=one["Key"])
    client.delete_bucket(Bucket="data")
    server.stop()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("root", ["s3://data/pictures", "zip://pictures::s3://data/all.zip"])
def test_the_batches_of_local_files(pictures: Path, bucket: Any, tmp_path: Path, workers: int, root: str) -> None:
    bucket.upload_file(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path, "pictures"), "data", "all.zip")
    local, remote = folder(pictures, tmp_path), folder(root, tmp_path, workers=workers)
    for data in (local, remote):
        data.prepare_data()
        data.setup("fit")
    pairs = [*zip(local.train_dataloader(), remote.train_dataloader(), strict=True)]
    assert len(pairs) > 1
    assert all(torch.equal(one, other) for pair in pairs for one, other in zip(*pair, strict=True))
    assert remote.item_names_of([4]) == [root.replace("pictures", "pictures/bé/0 x.png")]
    assert remote.names_of([4]) == ["bé/0 x.png"]


def test_the_listing_tells_missing_empty_equal_and_changed_objects(pictures: Path, bucket: Any, tmp_path: Path) -> None:
    files = sorted(pictures.glob("*/*.png"))
    rows = {
        "file": [f"{path.parent.name}/{path.name}" for path in files],
        "label": [path.parent.name for path in files],
        "sum": [hashlib.md5(path.read_bytes()).hexdigest() for path in files],
    }
    parquet.write_table(pa.table(rows), tmp_path / "table.parquet")
    bucket.upload_file(str(tmp_path / "table.parquet"), "data", "pictures/table.parquet")
    settings: dict[str, Any] = {
        "table": "s3://data/pictures/table.parquet",
        "image": "file",
        "cache_dir": str(tmp_path),
    }
    ManifestDataModule(**settings, checksum="sum", classes_per_batch=2).prepare_data()
    bucket.delete_object(Bucket="data", Key="pictures/a b/1 x.png")
    bucket.put_object(Bucket="data", Key="pictures/bé/0 x.png", Body=b"")
    bucket.put_object(Bucket="data", Key="pictures/d/2 x.png", Body=files[0].read_bytes())
    with pytest.raises(UserError) as found:
        ManifestDataModule(**settings, checksum="sum").prepare_data()
    assert str(found.value).startswith(
        "data: 3 objects that cannot be used: s3://data/pictures/a b/1 x.png (row 1: no such object), "
        "s3://data/pictures/bé/0 x.png (row 4: 0 bytes), s3://data/pictures/d/2 x.png (row 14: expected the checksum "
        f"{rows['sum'][14]}, the listing has {rows['sum'][0]})"
    )
    with pytest.raises(
        UserError, match=r"contents have several labels .*a b/0 x\.png \(a b, \w+\) = s3://data/pictures/d/2 x\.p"
    ):
        ManifestDataModule(**settings).prepare_data()


def test_a_replaced_object_is_fetched_again(pictures: Path, bucket: Any, tmp_path: Path) -> None:
    def first(data: ImageFolderDataModule) -> torch.Tensor:
        data.prepare_data()
        inputs: torch.Tensor = data.samples.fetch(torch.tensor([0]))
        return inputs

    before = first(folder("s3://data/pictures", tmp_path))
    Image.new("RGB", (12, 9), (255, 0, 0)).save(pictures / "a b/0 x.png")
    bucket.upload_file(str(pictures / "a b/0 x.png"), "data", "pictures/a b/0 x.png")
    after = first(folder("s3://data/pictures", tmp_path))
    assert not torch.equal(before, after) and torch.equal(after, first(folder(pictures, tmp_path)))


def test_a_run_stopped_and_resumed_keeps_its_weights_and_no_secret(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Local files, and objects of a store that fails within an epoch, give the same weights to the last bit."""
    command = command_in(tmp_path, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = [
        "datamodule=image_folder", "datamodule.image_size=16", "+datamodule.fractions=[0.4,0.4,0.2]", "test=false",
        "datamodule.samples_per_class=2", "encoder.widths=[4,8,8]", "trainer.accelerator=cpu", "report=false",
        "trainer.max_steps=6", "callbacks.last.every_n_steps=1",
    ]  # fmt: skip
    assert command(*options, "datamodule.root=pictures", "hydra.run.dir=one") == 0
    last = tmp_path / "two/checkpoints/last.ckpt"

    def fails_after_three_steps(address: str) -> bytes:
        if last.exists() and torch.load(last, weights_only=True)["global_step"] >= 3:
            raise StoreError("data: cannot read it")
        return read(address)

    with monkeypatch.context() as outage:
        outage.setattr("datamodules.sources.object_images.read", fails_after_three_steps)
        outage.setattr("datamodules.sources.object_images.read_together", lambda addresses: [None] * len(addresses))
        remote = ["datamodule.root=s3://data/pictures", "datamodule.num_workers=0", "+datamodule.cache_gb=1e-9"]
        assert command(*options, *remote, "hydra.run.dir=two") == 2
    assert torch.load(last, weights_only=True)["global_step"] == 3  # of six, in epochs of two
    assert capfd.readouterr().err == "error: data: cannot read it\n"
    assert command("resume=two", "datamodule.num_workers=2", "datamodule.cache_gb=1") == 0
    weights = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert command("task=embed", "ckpt_path=two/checkpoints/last.ckpt", "hydra.run.dir=embedded") == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_missing_object_ends_the_command_with_one_line(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket.delete_object(Bucket="data", Key="pictures/a b/1 x.png")
    table = tmp_path / "table.csv"
    table.write_text(
        "file,label\n" + "".join(f"{name}/{number} x.png,{name}\n" for name in ("d", "a b", "c") for number in range(4))
    )
    words = [
        "datamodule=manifest",
        "datamodule.table=table.csv",
        "datamodule.image=file",
        "+datamodule.root=s3://data/pictures",
    ]
    assert command_in(tmp_path, monkeypatch)(*words, "+datamodule.split_by=sample", "hydra.run.dir=three") == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error == "error: data: 1 objects that cannot be used: s3://data/pictures/a b/1 x.png (row 5: no such object)"
