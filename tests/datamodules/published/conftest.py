"""Fixture that writes small copies of the data sets on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import published_trees


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    """Write one of the copies."""

    def make(name: str) -> Path:
        published_trees.TREES[name](tmp_path / name)
        return tmp_path / name

    return make
