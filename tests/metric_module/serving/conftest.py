"""Servers that several tests use; they need the extra ``serve``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metric_module import Embedder
from metric_module.inference import EmbeddingIndex
from metric_module.serving.app import Server
from tests.helpers.serving import WORDS, gallery_of, image_embedder, picture_folder, served, text_embedder


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return image_embedder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def index(embedder: Embedder, folder: Path) -> EmbeddingIndex:
    return gallery_of(embedder, folder)[0]


@pytest.fixture(scope="module")
def images(embedder: Embedder, folder: Path) -> Iterator[Any]:
    with served(Server(embedder, *gallery_of(embedder, folder)), "127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def texts() -> Iterator[Any]:
    model = text_embedder()
    with served(Server(model, EmbeddingIndex.build(model, WORDS, ["a", "a", "b", None]))) as client:
        yield client


@pytest.fixture(scope="module")
def alone() -> Iterator[Any]:
    """A server without a gallery and without a threshold."""
    with served(Server(image_embedder(threshold=None))) as client:
        yield client
