"""Fixtures of all tests, and one thread for them and their processes: the tensors are small, the machine is shared."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch

from tests.helpers.tiny_text import write_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run each test on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """Remove handlers that a test leaves at the root logger: their stream, which pytest captured, is closed by then."""
    before = [*logging.root.handlers]
    yield
    for handler in [*logging.root.handlers]:
        if handler not in before:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a tiny text model, and return its folder."""
    return str(write_model(tmp_path_factory.mktemp("text") / "tiny"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless chromium of this machine."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the browser tests need playwright: pip install -e '.[dev]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(f"the browser tests need one of {', '.join(BROWSERS)}: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
