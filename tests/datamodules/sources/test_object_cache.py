"""Tests of the cache of objects: its limit, what is evicted, several processes, and crashes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.sources.object_cache import ObjectCache
from metric_module.errors import UserError


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != ".total")


def forked(action: Callable[[], None]) -> int:
    """Run a function in a child process, and return its id."""
    child = os.fork()
    if not child:
        try:
            action()
        finally:
            os._exit(0)
    return child


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", 100)
    for name in "abc":
        cache.put(name, name.encode() * 30)
        time.sleep(0.002)
    assert cache.get("a") == b"a" * 30
    cache.put("d", b"d" * 30)
    assert [cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert bytes_in(cache.folder) == 90
    cache.put("e", b"e" * 101)
    assert cache.get("e") is None and bytes_in(cache.folder) == 90


def test_a_changed_object_is_forgotten(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 100)
    for size, changed, kept in (
        (3, None, True),
        (None, time.time() - 60, True),
        (4, None, False),
        (3, time.time(), False),
    ):
        cache.put("a", b"abc")
        cache.discard_changed("a", size, changed)
        assert (cache.get("a") is not None) == kept
    cache.discard_changed("never seen", 1, None)


def test_several_processes_keep_to_the_limit(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 20_000)

    def fill(number: int) -> None:
        for place in range(60):
            cache.put(f"{number} {place}", bytes([number]) * 1000)

    children = [forked(lambda number=number: fill(number)) for number in (1, 2, 3)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert 10_000 < bytes_in(tmp_path) <= 20_000
    assert int((tmp_path / ".total").read_text()) == bytes_in(tmp_path)
    kept = [cache.get(f"{number} {place}") for number in (1, 2, 3) for place in range(60)]
    assert {content and (len(content), len(set(content))) for content in kept} == {None, (1000, 1)}


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 10**6)

    def write_on() -> None:
        for place in range(10**6):
            cache.put(f"{place % 50}", bytes([place % 50 + 1]) * 10_000)

    for number in range(3):
        child = forked(write_on)
        while len([*tmp_path.glob("*")]) < 10 * (number + 1):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    found = {place: cache.get(str(place)) for place in range(50)}
    assert any(found.values())
    assert all(content in (None, bytes([place + 1]) * 10_000) for place, content in found.items())
    (tmp_path / ".total").write_text("")  # a crash while it was written
    cache.path_of("3").write_bytes(b"")  # a power failure: the name is there, the content is not
    assert cache.get("3") is None
    cache.put("3", b"whole")
    assert cache.get("3") == b"whole" and int((tmp_path / ".total").read_text()) >= bytes_in(tmp_path) - 30_000


def test_an_abandoned_temporary_file_is_evicted(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 100)
    for name, age in ((".old.1", 7200), (".new.2", 0)):
        (tmp_path / name).write_bytes(b"x" * 50)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cache.put("a", b"a" * 60)
    cache.put("b", b"b" * 30)
    assert not (tmp_path / ".old.1").exists() and (tmp_path / ".new.2").exists()


def test_mistakes_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^datamodule\.cache_gb: expected a number > 0, got -2$"):
        ObjectCache(tmp_path, -2e9)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^datamodule\.cache_dir: cannot write .*file/objects \(Not a directory\)$"):
        ObjectCache(tmp_path / "file" / "objects", 10).put("a", b"a")
