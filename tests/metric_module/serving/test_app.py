"""Answers of the server over a real connection: ``pytest -m integration``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from metric_module import Embedder
from metric_module.inference import EmbeddingIndex
from metric_module.serving.app import Server
from tests.helpers.serving import (
    PNG,
    WORDS,
    encoded,
    form,
    gallery_of,
    image_embedder,
    picture,
    refusal,
    served,
    text_embedder,
    vector_embedder,
)

pytestmark = pytest.mark.integration


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
    with served(Server(embedder, *gallery_of(embedder, folder))) as client:
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
