"""A thousand malformed requests, over a real connection: ``pytest -m integration``."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.helpers.serving import (
    PNG,
    encoded,
    form,
    picture,
    refusal,
)

pytestmark = pytest.mark.integration


def malformed(chance: random.Random, good: bytes, bomb: bytes) -> tuple[str, dict[str, Any]]:
    """A request that no server of images or texts should answer with 200."""
    path = chance.choice(["/embed", "/search", "/identify", "/same"])
    noise = chance.randbytes(chance.choice([0, 1, 30, 3000]))
    cut = good[: chance.randrange(len(good) - 40)]
    kinds = ["image/png", "multipart/form-data; boundary=x", "multipart/form-data", "application/json", "text/html"]
    kinds += ["", "image/", "multipart/form-data; boundary=" + "y" * 300, "application/json; charset=utf-99"]
    deep = b"[" * chance.choice([10, 100_000])
    part = b'--x\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n'
    body = chance.choice(
        [noise, cut, deep, b'{"texts":' + deep, part + cut, part + cut + b"\r\n--x--", part * 99, bomb]
    )
    choices: list[tuple[str, dict[str, Any]]] = [
        (path, {"content": body, "headers": {"content-type": chance.choice(kinds)}}),
        (
            path,
            {"json": chance.choice([None, 1, "a", [], {"texts": noise.hex()}, {"texts": [1]}, {"texts": [[]] * 70}])},
        ),
        (path, {"files": form(good, *[cut] * chance.choice([1, 3, 70]))}),
        (f"/search?k={chance.choice([0, -1, 10**30, 'x', ''])}", {"content": good, "headers": PNG}),
        (f"{path}?{noise[:20].hex()}=1", {"content": good, "headers": PNG}),
        (path, {"data": {"a": noise.hex()}, "files": form(good)}),
    ]
    return chance.choice(choices)


def speak(address: str, content: bytes) -> bytes:
    """Send bytes that need not be HTTP, and return what comes back."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        try:
            return connection.makefile("rb").read()
        except ConnectionResetError:
            return b""


def test_a_thousand_malformed_requests_change_no_later_answer(images: Any, texts: Any) -> None:
    chance = random.Random(0)
    good, bomb = encoded(picture(11)), encoded(Image.new("1", (20000, 20000)))
    asked: list[Callable[[], Any]] = [
        lambda: images.post("/embed", content=good, headers=PNG).json()["embeddings"],
        lambda: images.post("/search", content=good, headers=PNG).json(),
        lambda: texts.post("/embed", json={"texts": ["after"]}).json()["embeddings"],
    ]
    before = [ask() for ask in asked]
    seen: dict[int, int] = {}
    for number in range(900):
        path, options = malformed(chance, good, bomb)
        answer = (images, texts)[number % 2].post(path, **options)
        refusal(answer, answer.status_code)
        assert 400 <= answer.status_code < 500, (path, options, answer.text)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    for number in range(100):
        start = chance.choice([b"", b"GET / HTTP/1.1\r\n", b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
        address = str((images, texts)[number % 2].base_url)
        reply = speak(address, start + chance.randbytes(200) + b"\r\n\r\n")
        assert reply == b"" or reply.startswith(b"HTTP/1.1 4"), reply
        assert b"Traceback" not in reply
    assert [ask() for ask in asked] == before and set(seen) >= {400, 413, 415}, seen
