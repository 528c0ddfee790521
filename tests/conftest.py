"""Fixtures of all tests, and one thread for them and their processes: the tensors are small, the machine is shared."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch

from tests.helpers.tiny_text import write_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run each test on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a tiny text model, and return its folder."""
    return str(write_model(tmp_path_factory.mktemp("text") / "tiny"))
