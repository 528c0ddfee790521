"""The server over a real connection: ``pytest -m integration``."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

from metric_module import Embedder, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.inference import EmbeddingIndex
from metric_module.inference.gallery import read_gallery
from metric_module.serving.app import MAX_BYTES, MAX_ITEMS, MAX_PIXELS, MAX_TEXT, Server
from metric_module.serving.queue import BatchQueue
from tests.helpers.serving import (
    encoded,
    image_embedder,
    picture,
    picture_folder,
    running,
    text_embedder,
    vector_embedder,
)

pytestmark = pytest.mark.integration

PNG = {"content-type": "image/png"}
WORDS = ["anna", "annas", "ben", "bens"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return image_embedder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def index(embedder: Embedder, folder: Path) -> EmbeddingIndex:
    return read_gallery(embedder, folder)[0]


@contextmanager
def served(server: Server, *hosts: str) -> Iterator[Any]:
    """A client of a running server."""
    import httpx

    with (
        running(server.application(hosts or ["*"])) as address,
        httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def images(embedder: Embedder, folder: Path) -> Iterator[Any]:
    with served(Server(embedder, *read_gallery(embedder, folder)), "127.0.0.1") as client:
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


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("a.png", content)) for content in contents]


def refusal(answer: Any, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"] and "\n" not in content["error"] and "Traceback" not in content["error"]
    return str(content["error"])


def test_images_are_embedded_as_the_embedder_does(images: Any, embedder: Embedder) -> None:
    pictures = [picture(seed) for seed in (20, 21, 22)]
    contents = [encoded(pictures[0]), encoded(pictures[1], "BMP"), encoded(pictures[2], "WEBP")]
    expected = embedder.embed([io.BytesIO(content) for content in contents])
    found = torch.tensor(images.post("/embed", files=form(*contents)).json()["embeddings"])
    assert found.shape == (3, 8) and len({tuple(row) for row in found.tolist()}) == 3
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    single = images.post("/embed", content=contents[1], headers={"content-type": "image/bmp; x=1"}).json()["embeddings"]
    assert torch.allclose(torch.tensor(single), expected[1:2], rtol=0, atol=1e-6)


def test_a_search_finds_the_neighbours_of_the_index(images: Any, index: EmbeddingIndex, folder: Path) -> None:
    contents = [encoded(picture(seed)) for seed in (1, 30)]
    answer = images.post("/search?k=3", files=form(*contents)).json()
    expected = index.search([io.BytesIO(content) for content in contents], 3)
    near = answer["neighbours"]
    assert answer["threshold"] == 0.5
    assert [[one["position"] for one in row] for row in near] == expected.positions.tolist()
    for row, distances in zip(near, expected.distances.tolist(), strict=True):
        assert [one["distance"] for one in row] == pytest.approx(distances, abs=1e-6)
    for one in [one for row in near for one in row]:
        assert one["name"] == index.names[one["position"]] and one["label"] == index.labels[one["position"]]
        assert one["within_threshold"] is (one["distance"] <= 0.5)
    assert near[0][0]["name"] == str(folder / "anna" / "2.png") and near[0][0]["label"] == "anna"
    assert len(images.post("/search", content=contents[0], headers=PNG).json()["neighbours"][0]) == len(index)


def test_identify_names_or_does_not(images: Any, index: EmbeddingIndex, embedder: Embedder) -> None:
    contents = [encoded(picture(seed)) for seed in (*range(8), *range(40, 48))]
    expected = index.identify([io.BytesIO(content) for content in contents])
    assert images.post("/identify", files=form(*contents)).json() == {"labels": expected}
    assert expected[:6] == ["anna"] * 3 + ["ben"] * 3


def test_same_measures_two_items(images: Any, embedder: Embedder) -> None:
    one, other = encoded(picture(0)), encoded(picture(9))
    match = embedder.same(io.BytesIO(one), io.BytesIO(other))
    answer = images.post("/same", files=form(one, other)).json()
    assert answer == {"same": match.same, "distance": pytest.approx(match.distance, abs=1e-6), "threshold": 0.5}
    assert images.post("/same", files=form(one, one)).json() == {"same": True, "distance": 0.0, "threshold": 0.5}
    assert refusal(images.post("/same", files=form(one)), 400) == "expected two items, got 1"
    assert refusal(images.post("/same", files=form(one, one, one)), 400) == "expected two items, got 3"


def test_texts_are_sent_as_json(texts: Any) -> None:
    rows = texts.post("/embed", json={"texts": ["zoë", "ben"]}).json()["embeddings"]
    assert torch.allclose(torch.tensor(rows), text_embedder().embed(["zoë", "ben"]), rtol=1e-5)
    near = texts.post("/search?k=1", json={"texts": ["annas"]}).json()["neighbours"]
    assert near == [
        [{"position": 1, "name": "annas", "label": "a", "distance": near[0][0]["distance"], "within_threshold": True}]
    ]
    assert near[0][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert texts.post("/identify", json={"texts": ["ben", "anna"]}).json() == {"labels": ["b", "a"]}
    assert texts.post("/same", json={"texts": ["ben", "ben"]}).json()["same"] is True


def test_a_path_is_no_text_of_an_image(images: Any, texts: Any, folder: Path) -> None:
    path = str(folder / "loose.png")
    assert refusal(images.post("/embed", json={"texts": [path]}), 415).startswith("content type: expected image/")
    assert refusal(images.post("/embed", json={"inputs": [path]}), 415).startswith("content type: expected image/")
    as_text = texts.post("/embed", json={"texts": [path]}).json()["embeddings"]
    assert torch.allclose(torch.tensor(as_text), text_embedder().embed([path]), rtol=1e-5)


def test_numbers_are_sent_as_json() -> None:
    with served(Server(vector_embedder())) as server:
        rows = server.post("/embed", json={"inputs": [[1, 2, 3], [4, 5, 6.5]]}).json()["embeddings"]
        assert torch.allclose(torch.tensor(rows), vector_embedder().embed([[1, 2, 3], [4, 5, 6.5]]), rtol=1e-5)
        wrong: list[list[Any]] = [[[1, 2]], ["/etc/passwd"], [None], [{"a": 1}], [[[[]]]], [[1, 2, "3"]], [[1, [2], 3]]]
        for inputs in wrong:
            assert refusal(server.post("/embed", json={"inputs": inputs}), 400).startswith("item 0: ")
        line = refusal(server.post("/embed", json={"inputs": [[1, 2, 3], [3e38, -3e38, 3e38]]}), 400)
        assert line == "MLP: NaN or infinity in 1 embeddings: item 1"


def test_health_tells_what_is_served(images: Any, texts: Any, alone: Any) -> None:
    figures = {"val": {"map_at_r": 0.5, "loss": None}}
    about = {"status": "ok", "takes": "image", "items": 8, "pictures": True, "threshold": 0.5, "figures": figures}
    assert images.get("/health").json() == about
    assert texts.get("/health").json()["takes"] == "text" and texts.get("/health").json()["items"] == 4
    assert alone.get("/health").json() == {**about, "items": 0, "pictures": False, "threshold": None}


def test_only_pictures_of_the_gallery_are_shown(images: Any, texts: Any, folder: Path) -> None:
    answer = images.get("/item/3")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (160, 160) and image.getexif() == {}
    paths = ["8", "-1", "9" * 5000, "1.0", "%31%2f..", "..%2floose.png", "x", "²"]
    for path in paths:
        assert images.get(f"/item/{path}").status_code == 404, path
    expected = "item with a picture: expected an integer from 0 to 7, got '8'"
    assert refusal(images.get("/item/8"), 404) == expected
    refusal(texts.get("/item/0"), 404)


def test_the_page_loads_nothing_from_elsewhere(images: Any) -> None:
    answer = images.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for path in ("/", "/page.js", "/page.css", "/serve.css"):
        assert images.get(path).status_code == 200 and "//" not in images.get(path).text.replace("// ", ""), path


def test_another_host_is_refused(images: Any) -> None:
    answer = images.get("/health", headers={"host": "attacker.example"})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")


def test_without_a_threshold_a_search_measures_alone(folder: Path) -> None:
    embedder = image_embedder(threshold=None)
    with served(Server(embedder, *read_gallery(embedder, folder))) as client:
        answer = client.post("/search?k=1", content=encoded(picture(0)), headers=PNG).json()
        assert answer["threshold"] is None and answer["neighbours"][0][0]["within_threshold"] is None
        line = refusal(client.post("/identify", content=encoded(picture(0)), headers=PNG), 404)
        assert line == "no threshold: neither the training nor the gallery has one"


def test_a_gallery_and_a_threshold_must_exist(alone: Any) -> None:
    one = encoded(picture(0))
    for name in ("search", "identify"):
        line = refusal(alone.post(f"/{name}", content=one, headers=PNG), 404)
        assert line == "no gallery: start with gallery=<folder of images, or file of task=embed>"
    line = refusal(alone.post("/same", files=form(one, one)), 404)
    assert line == "no threshold: neither the training nor the gallery has one"
    model = text_embedder()
    with served(Server(model, EmbeddingIndex.build(model, WORDS))) as client:
        line = refusal(client.post("/identify", json={"texts": ["a"]}), 400)
        assert line == "identify: expected items with labels, got none; give labels to build or add"


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
    for bad, reason in ((b"", unknown), (b"no image", unknown), (good[:200], cut), (b"%!PS-Adobe-3.0", unknown)):
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
