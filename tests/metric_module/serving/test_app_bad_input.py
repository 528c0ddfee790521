"""Requests that the server refuses, over a real connection: ``pytest -m integration``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image

from metric_module import Embedder, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.serving.app import MAX_BYTES, MAX_ITEMS, MAX_PIXELS, MAX_TEXT, Server
from metric_module.serving.queue import BatchQueue
from tests.helpers.serving import (
    PNG,
    encoded,
    form,
    picture,
    refusal,
    served,
    text_embedder,
    vector_embedder,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("k", ["0", "101", "-1", "1.5", "ten", "", "9" * 5000, "١٢٣٤"])
def test_k_must_be_an_integer_in_range(texts: Any, k: str) -> None:
    line = refusal(texts.post("/search", params={"k": k}, json={"texts": ["a"]}), 400)
    assert line == f"k: expected an integer from 1 to 100, got {k[:40]!r}"


def test_an_unknown_option_is_refused(texts: Any) -> None:
    for path in ("/search?top=3", "/identify?top=3", "/search?k=3&top=3"):
        assert refusal(texts.post(path, json={"texts": ["a"]}), 400) == "unknown option 'top'; allowed: k, for /search"
    assert (
        refusal(texts.post("/embed?k=3", json={"texts": ["a"]}), 400) == "unknown option 'k'; allowed: k, for /search"
    )


def test_bad_images_are_refused_by_position(images: Any) -> None:
    good = encoded(picture(0))
    unknown, cut = "cannot be read (UnidentifiedImageError)", "cannot be read (OSError)"
    for bad, reason in (
        (b"", unknown),
        (b"no image", unknown),
        (good[:200], cut),
        (encoded(picture(0), "EPS"), unknown),
    ):
        assert refusal(images.post("/embed", files=form(good, bad, good)), 400) == f"item 1: {reason}"
    floats = io.BytesIO()
    Image.new("F", (8, 8)).save(floats, "TIFF")
    line = refusal(images.post("/embed", content=floats.getvalue(), headers=PNG), 400)
    assert line == "item 0: expected pixels of 8 or 16 bits, got Pillow's mode F: convert the image"


@pytest.mark.parametrize("side", [6400, 12000, 20000])
def test_decompression_bombs_are_refused_before_they_are_decoded(images: Any, side: int) -> None:
    """Beyond our limit; beyond the limit at which Pillow warns; and beyond that at which it raises."""
    bomb = encoded(Image.new("1", (side, side)))
    assert len(bomb) < 60_000 and side**2 > MAX_PIXELS
    line = refusal(images.post("/embed", content=bomb, headers=PNG), 413)
    assert line == f"item 0: cannot be read (more than {MAX_PIXELS:,} pixels)"


def test_a_body_is_not_read_beyond_the_limit(images: Any) -> None:
    expected = f"expected at most {MAX_BYTES:,} bytes, got more"
    assert refusal(images.post("/embed", content=bytes(MAX_BYTES + 1), headers=PNG), 413) == expected
    sent = []

    def endless() -> Iterator[bytes]:
        for number in range(10_000):
            sent.append(number)
            yield bytes(2**20)

    import httpx

    # The server may close the connection before the client has sent everything.
    with suppress(httpx.WriteError, httpx.RemoteProtocolError):
        assert refusal(images.post("/embed", content=endless(), headers=PNG), 413) == expected
    assert len(sent) < 1000


def test_forms_are_checked(images: Any) -> None:
    good = encoded(picture(0))
    line = f"Too many files. Maximum number of files is {MAX_ITEMS}."
    assert refusal(images.post("/embed", files=form(*[good] * (MAX_ITEMS + 1))), 400) == line
    line = "Too many fields. Maximum number of fields is 0."
    assert refusal(images.post("/embed", data={"a": "b"}, files=form(good)), 400) == line
    kind = {"content-type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n' + good + b"\r\n"
    assert images.post("/embed", content=part + b"--x--\r\n", headers=kind).status_code == 200
    cut = images.post("/embed", content=part + part, headers=kind)
    assert refusal(cut, 400) == "the form has no end: it was cut off"
    assert refusal(images.post("/embed", content=b"--x--\r\n", headers=kind), 400) == "expected 1 to 64 items, got 0"
    line = refusal(images.post("/embed", content=part + b"--x--", headers={"content-type": "multipart/form-data"}), 400)
    assert line == "Missing boundary in multipart."


def test_json_is_checked(texts: Any) -> None:
    kind = {"content-type": "application/json"}
    bodies = [b"", b"{", b"[]", b"{}", b'"texts"', b'{"texts": "a"}', b'{"texts": ["a"], "k": 3}', b'{"inputs": ["a"]}']
    bodies += [b"[" * 100_000, b'{"texts":' * 50_000, b"\xff\xfe", b'{"texts": {"0": "a"}}', b"9" * 5000]
    for body in bodies:
        assert refusal(texts.post("/embed", content=body, headers=kind), 400) == 'expected JSON {"texts": [...]}'
    for wrong in (1, None, ["a"], {"a": 1}):
        line = refusal(texts.post("/embed", json={"texts": ["a", wrong]}), 400)
        assert line == f"item 1: expected a text (str), got {type(wrong).__name__}"
    assert refusal(texts.post("/embed", json={"texts": []}), 400) == "expected 1 to 64 items, got 0"
    assert refusal(texts.post("/embed", json={"texts": ["a"] * 65}), 400) == "expected 1 to 64 items, got 65"
    half = texts.post("/embed", content=b'{"texts": ["\\ud800"]}', headers=kind)
    assert refusal(half, 400) == "item 0: cannot be read (UnicodeEncodeError)"
    line = f"item 0: expected at most {MAX_TEXT:,} bytes of text"
    assert refusal(texts.post("/embed", json={"texts": ["ä" * MAX_TEXT]}), 400) == line
    assert refusal(texts.post("/embed", data={"texts": "a"}), 415).startswith(
        "content type: expected application/json,"
    )


def test_paths_and_methods(texts: Any) -> None:
    assert refusal(texts.get("/nothing"), 404) == "Not Found"
    assert refusal(texts.get("/embed"), 405) == "Method Not Allowed"
    assert refusal(texts.post("/health"), 405) == "Method Not Allowed"


def test_an_overloaded_server_says_so() -> None:
    model = text_embedder()
    server = Server(model)
    server._queue = BatchQueue(model, server._read, limit=2)
    with served(server) as client:
        line = refusal(client.post("/embed", json={"texts": ["a", "b", "c"]}), 503)
        assert line == "overloaded: 0 of at most 2 items wait; try again later"
        assert client.post("/embed", json={"texts": ["a", "b"]}).status_code == 200


class Faulty(MLP):
    def forward(self, inputs: Any) -> Any:
        raise RuntimeError("a bug with a secret")


def test_a_bug_is_not_shown_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    import httpx

    with served(Server(vector_embedder(Faulty(3, embedding_dim=4)))) as client:
        answer = client.post("/embed", json={"inputs": [[1, 2, 3]]})
        assert refusal(answer, 500) == "internal error, printed by the server"
        with suppress(httpx.ReadError):  # the server closes this connection
            client.get("/health")
        assert client.get("/health").status_code == 200
    assert "a bug with a secret" in caplog.text


def test_without_preprocessing_there_is_nothing_to_serve() -> None:
    with pytest.raises(UserError, match="serve: the training did not define how an item becomes an encoder input"):
        Server(Embedder(MLP(3), Euclidean(), device="cpu"))
