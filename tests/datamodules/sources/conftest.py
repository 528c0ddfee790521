"""Pictures on disk, and a server of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.sources import object_store
from tests.helpers.object_server import ObjectServer, object_server
from tests.helpers.stored_pictures import write_pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Server of the test's folder; failed requests are repeated twice, at once."""
    monkeypatch.setattr(object_store, "WAITS", (0, 0))
    with object_server(tmp_path) as server:
        yield server
