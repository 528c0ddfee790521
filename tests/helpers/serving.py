"""A server in a thread, on a free port of this machine."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from metric_module import Embedder, EmbeddingIndex
from metric_module.distances import Euclidean
from metric_module.encoders import MLP, CharConvNet, ConvNet
from metric_module.inference.items import find_gallery
from metric_module.preprocessing import ImageInput, TextInput, VectorInput
from metric_module.serving.app import Server
from metric_module.tasks.serve import listen

PNG = {"content-type": "image/png"}
WORDS = ["anna", "annas", "ben", "bens"]


@contextmanager
def running(application: Any) -> Iterator[str]:
    """Serve an application, and yield its address without the slash at the end."""
    import uvicorn

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


def image_embedder(threshold: float | None = 0.5) -> Embedder:
    """An encoder of images that is not trained."""
    torch.manual_seed(0)
    figures = {"val": {"map_at_r": 0.5, "loss": float("nan")}}
    return Embedder(ConvNet(widths=[8, 8, 8], embedding_dim=8), Euclidean(), ImageInput(16), threshold, figures, "cpu")


def text_embedder() -> Embedder:
    """An encoder of texts that is not trained."""
    torch.manual_seed(0)
    return Embedder(CharConvNet(8, width=8, depth=1), Euclidean(), TextInput(), 0.5, device="cpu")


def vector_embedder(encoder: torch.nn.Module | None = None) -> Embedder:
    """An encoder of three numbers that is not trained."""
    torch.manual_seed(0)
    return Embedder(encoder or MLP(3, embedding_dim=4), Euclidean(), VectorInput(3), 0.5, device="cpu")


def picture(seed: int) -> Image.Image:
    """Coarse noise, so that pictures differ after they are made smaller."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((60, 50), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture_folder(root: Path) -> Path:
    """Two folders of three pictures, and two without a label; names that HTML would read."""
    for seed, name in enumerate(("anna/1.png", "anna/2.png", "anna/3.png", "ben/1.png", "ben/2.png", "ben/3.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(root / name)
    picture(6).save(root / "<b id=injected>.png")
    picture(7).save(root / "loose.png")
    return root


@contextmanager
def served(server: Server, *hosts: str) -> Iterator[Any]:
    """A client of a running server."""
    import httpx

    with (
        running(server.application(hosts or ["*"])) as address,
        httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
    ):
        yield client


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("a.png", content)) for content in contents]


def refusal(answer: Any, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"] and "\n" not in content["error"] and "Traceback" not in content["error"]
    return str(content["error"])


def gallery_of(embedder: Embedder, folder: Path) -> tuple[EmbeddingIndex, list[Path]]:
    """Embed the pictures of a folder, as the task does."""
    index = find_gallery(str(folder), embedder)
    return index, [Path(name) for name in index.names]
