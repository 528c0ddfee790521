"""Tests of reads with retries, and of listings."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datamodules.sampling.dataset import StoreError
from datamodules.sources import object_listing, object_store
from datamodules.sources.addresses import check_address, is_cached, join, shown, suffix_of
from datamodules.sources.object_listing import Listed, find, list_objects
from datamodules.sources.object_store import ObjectError, file_system, read
from datamodules.sources.paths import Paths
from metric_module.errors import UserError
from tests.helpers.object_server import ObjectServer, object_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    (tmp_path / "a b.txt").write_bytes(b"content")
    (tmp_path / "empty").write_bytes(b"")
    monkeypatch.setattr(object_store, "WAITS", (0, 0, 0))
    with object_server(tmp_path) as server:
        yield server


def test_an_answer_that_fails_is_asked_for_again(server: ObjectServer) -> None:
    answers = iter([503, 429, 500, 0])
    server.fail = lambda path: next(answers)
    assert read(join(server.address, "a b.txt")) == b"content"
    assert server.requests == ["GET /a%20b.txt"] * 4


def test_the_tries_are_limited_and_reported(server: ObjectServer) -> None:
    server.fail = lambda path: 503
    address = f"{server.address}/a?token=hunter2"
    expected = rf"^data: cannot read {server.address}/a after 4 tries in 0 seconds or more, the last: 503, message="
    with pytest.raises(StoreError, match=expected) as found:
        read(address)
    assert len(server.requests) == 4 and "hunter2" not in str(found.value)


def test_a_missing_object_is_not_asked_for_again(server: ObjectServer) -> None:
    with pytest.raises(ObjectError, match=r"^no such object$"):
        read(f"{server.address}/a")
    assert len(server.requests) == 1
    assert list_objects(Paths([f"{server.address}/a"])) == [Listed("no such object")]


@pytest.mark.parametrize("call", [read, lambda address: list_objects(Paths([address])), find])
def test_denied_access_fails_at_once_and_is_no_missing_object(server: ObjectServer, call: Callable[[str], Any]) -> None:
    server.fail = lambda path: 403
    address = f"{server.address}/a?token=hunter2"
    with pytest.raises(StoreError, match=f"^data: cannot read {server.address}/a: HTTP status 403$") as found:
        call(address)
    assert len(server.requests) <= 2  # HEAD and GET
    assert "hunter2" not in "".join(traceback.format_exception(found.value)[1:])


def test_an_archive_that_is_missing_or_cannot_be_opened(server: ObjectServer) -> None:
    archive = f"zip://a.png::{server.address}/none.zip?token=hunter2"
    assert list_objects(Paths([archive])) == [Listed("no such object")] and find(archive) == []
    expected = rf"^data: cannot read zip://a\.png::{server.address}/a b\.txt after 4 tries .* the last: [^?]+$"
    with pytest.raises(StoreError, match=expected):
        read(f"zip://a.png::{server.address}/a b.txt?token=hunter2")


def test_objects_are_listed_without_reading_them(server: ObjectServer) -> None:
    found = list_objects(Paths([join(server.address, name) for name in ("a b.txt", "empty", "none")]))
    assert [(one.problem, one.size) for one in found] == [("", 7), ("0 bytes", 0), ("no such object", None)]
    assert found[0].changed is not None and all("GET" not in request for request in server.requests[:2])
    answers = iter([503] * 4 + [0])
    server.fail = lambda path: next(answers)  # two tries, by HEAD and GET
    assert list_objects(Paths([join(server.address, "a b.txt")]))[0].size == 7


def test_folders_are_listed_once() -> None:
    store = fsspec.filesystem("memory")
    for name, content in (("a/1", b"x"), ("a/2", b""), ("b/1", b"xyz")):
        store.pipe_file(f"/listing/{name}", content)
    addresses = [f"memory://listing/{name}" for name in ("b/1", "a/1", "a/2", "a/3", "c/1")]
    assert [(one.problem, one.size) for one in list_objects(Paths(addresses))] == [
        ("", 3), ("", 1), ("0 bytes", 0), ("no such object", None), ("no such object", None)
    ]  # fmt: skip


def test_each_store_has_its_own_words() -> None:
    day = datetime(2026, 1, 2, tzinfo=UTC)
    md5, tag = "9a0364b9e99bb480dd25e1f0284c8555", '"9a0364b9e99bb480dd25e1f0284c8555"'
    entry = object_listing._listed
    assert entry({"size": 1, "LastModified": day, "ETag": tag}) == Listed("", 1, day.timestamp(), md5)
    assert entry({"size": 1, "LastModified": day, "ETag": '"9a03-2"'}).md5 == ""  # uploaded in two parts
    assert entry({"size": 1, "ETag": tag}).md5 == ""  # an HTTP server's, which may be anything
    google = {"size": 1, "updated": "2026-01-02T00:00:00Z", "md5Hash": "mgNkuembtIDdJeHwKEyFVQ==", "etag": "CJ"}
    assert entry(google) == Listed("", 1, day.timestamp(), md5)
    assert entry({"size": None, "Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}) == Listed("", None, day.timestamp())


def test_a_file_system_is_made_again_after_a_fork(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_system(server.address)[0]
    assert file_system(f"{server.address}/a")[0] is first
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert file_system(server.address)[0] is not first


def test_unknown_protocols_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, other in (("ftp://host/a", "ftp"), ("reference://a::s3://b/c.json", "reference")):
        expected = f"^{re.escape(address)}: expected s3://, gs://, http://, https:// or zip://, got {other}://$"
        with pytest.raises(UserError, match=expected):
            check_address(address)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"^gs://b/a: pip install 'lightning-triplets\[gcs\]' to read such addresses$"):
        read("gs://b/a")


def test_addresses() -> None:
    assert join("s3://b/x/", "é #1.png") == "s3://b/x/é #1.png" and join("s3://b", "gs://c/a") == "gs://c/a"
    assert join("http://h/x", "é #1.png") == "http://h/x/%C3%A9%20%231.png"
    assert join("zip://::all.zip", "a.png") == "zip://a.png::all.zip"
    assert suffix_of("zip://a.CSV::s3://b/all.zip") == ".csv" and suffix_of("a/b.parquet") == ".parquet"
    assert shown("https://h/a.png?sig=1") == "https://h/a.png" and shown("s3://b/a?.png") == "s3://b/a?.png"
    assert shown("zip://a?.png::http://h/b c.zip?sig=1 2") == "zip://a?.png::http://h/b c.zip"
    assert is_cached("s3://b/a") and is_cached("zip://a::s3://b/c.zip")
    assert not is_cached("zip://a::c.zip") and not is_cached("memory://a")
