from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metric_module import UserError
from metric_module.inference.gallery import read_gallery
from tests.helpers.serving import image_embedder, picture_folder, vector_embedder


def test_images_of_a_folder_are_labelled_by_their_subfolder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = image_embedder()
    folder = picture_folder(tmp_path / "gallery")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("left by an operating system")
    index, pictures = read_gallery(embedder, folder)
    names = ["<b id=injected>.png", *(f"{name}/{at}.png" for name in ("anna", "ben") for at in (1, 2, 3)), "loose.png"]
    assert [str(one.relative_to(folder)) for one in pictures] == names
    assert index.names == [str(folder / name) for name in names]
    assert index.labels == [None, *["anna"] * 3, *["ben"] * 3, None]
    assert torch.equal(index.embeddings, embedder.embed(pictures))
    assert capsys.readouterr().out == f"embedding 8 images of {folder}\n"


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "gallery")
    (folder / "ben" / "9.png").write_text("no image")
    with pytest.raises(UserError, match=r"1 of 9 items cannot be read: .*ben/9.png \(cannot identify"):
        read_gallery(image_embedder(), folder)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"gallery: no images in {tmp_path}"):
        read_gallery(image_embedder(), tmp_path)


def test_a_file_of_embeddings_has_no_pictures(tmp_path: Path) -> None:
    embedder = image_embedder()
    built, _ = read_gallery(embedder, picture_folder(tmp_path / "gallery"))
    built.write(tmp_path / "gallery.arrow")
    index, pictures = read_gallery(embedder, tmp_path / "gallery.arrow")
    assert pictures == [] and index.names == built.names and torch.equal(index.embeddings, built.embeddings)
    with pytest.raises(UserError, match="expected 4 numbers as of the embedder, got 8"):
        read_gallery(vector_embedder(), tmp_path / "gallery.arrow")
