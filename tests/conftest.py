"""One thread: the tensors here are small, and tests share the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
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
    """The folder of a tiny text model."""
    return str(write_model(tmp_path_factory.mktemp("text") / "tiny"))
