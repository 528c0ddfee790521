"""Items of a search by their place on disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metric_module import Embedder, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP, CharConvNet
from metric_module.inference.items import find_gallery, find_items
from metric_module.preprocessing import ImageInput, TextInput, VectorInput

IMAGES = Embedder(MLP(in_features=12, hidden=(8,), embedding_dim=4), Euclidean(), ImageInput(2), device="cpu")
TEXTS = Embedder(CharConvNet(width=4, depth=1, embedding_dim=4), Euclidean(), TextInput(), device="cpu")
VECTORS = Embedder(MLP(in_features=3, hidden=(8,), embedding_dim=4), Euclidean(), VectorInput(3), device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["b/2.png", "a/x/1.PNG", "loose.png", ".hidden/3.png", "b/.4.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (50 * number, 9, 9)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_images(folder: Path) -> None:
    items, labels = find_items("query", str(folder), IMAGES)
    assert items == [folder / "a/x/1.PNG", folder / "b/2.png", folder / "loose.png"]
    assert labels == ["a/x", "b", None]
    assert find_items("query", str(folder / "b/2.png"), IMAGES) == ([folder / "b/2.png"], [None])
    assert find_items("query", str(folder / "b/.4.png"), IMAGES).items == [folder / "b/.4.png"]


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("eins\n\n  \nzwei\n", encoding="utf-8")
    assert find_items("query", str(tmp_path / "a.txt"), TEXTS) == (["eins", "zwei"], [None, None])
    assert find_items("query", "how do I train", TEXTS).items == ["how do I train"]


def test_texts_that_are_no_names_of_files(tmp_path: Path) -> None:
    long = "a long text " * 1000
    assert find_items("query", long, TEXTS).items == [long]
    (tmp_path / "a.txt").write_bytes("\ufeffeins\r\nz\u2028w\x0cei\n".encode())
    assert find_items("gallery", str(tmp_path / "a.txt"), TEXTS).items == ["eins", "z\u2028w\x0cei"]


def test_folders_and_labels_with_odd_names(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    for name in (b"a\xff", b"a\nb\x1b[31m"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        Image.new("RGB", (4, 4)).save(folder / "1.png")
    labels = ["a\\nb\\x1b[31m", "a\\udcff"]
    assert find_items("gallery", str(tmp_path), IMAGES).labels == labels
    assert find_gallery(str(tmp_path), IMAGES).labels == labels


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    found = find_items("query", str(tmp_path / "a.npy"), VECTORS)
    assert VECTORS.embed(found.items).equal(VECTORS.embed(torch.arange(6.0).reshape(2, 3)))


@pytest.mark.parametrize(
    ("name", "embedder", "message"),
    [
        ("none", IMAGES, "gallery: no such file or folder: {}/none"),
        ("notes.txt", IMAGES, "gallery: {}/notes.txt: expected images, such as .jpg and .png, got none"),
        ("empty.txt", TEXTS, "gallery: {}/empty.txt: expected a text on each line, got none"),
        (
            "none.txt",
            TEXTS,
            "gallery: expected a file with a text on each line: {}/none.txt (No such file or directory)",
        ),
        ("latin.txt", TEXTS, "gallery: expected a file with a text on each line: {}/latin.txt (not UTF-8)"),
        (300 * "x", IMAGES, "gallery: no such file or folder: {}/xxx"),
        ("empty.npy", VECTORS, "gallery: {}/empty.npy: expected an array with a row for each item, got none"),
        ("notes.txt", VECTORS, "gallery: {}/notes.txt is not an array in a .npy file ("),
        (
            "objects.npy",
            VECTORS,
            "gallery: {}/objects.npy is not an array in a .npy file (Array can't be memory-mapped: Python objects",
        ),
    ],
)
def test_nothing_to_search(name: str, embedder: Embedder, message: str, folder: Path) -> None:
    (folder / "empty.txt").write_text("\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    np.save(folder / "empty.npy", np.zeros((0, 3)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=f"^{re.escape(message.format(folder))}"):
        find_items("gallery", str(folder / name), embedder)


def test_a_gallery_is_built_or_read(folder: Path) -> None:
    built = find_gallery(str(folder), IMAGES)
    assert (list(built.names)[1], list(built.labels)) == (str(folder / "b/2.png"), ["a/x", "b", None])
    built.write(folder / "index.arrow")
    read = find_gallery(str(folder / "index.arrow"), IMAGES)
    queries = IMAGES.embed([folder / "b/2.png"])
    assert read.search(queries, k=3).positions.equal(built.search(queries, k=3).positions)
