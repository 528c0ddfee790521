"""Test of one command on a messy folder of images: training, evaluation and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import ImageFolderDataModule
from tests.helpers.command_line import command_in

CLASSES = ["Bücher", "a = b", "x,y", "mit Leerzeichen", "日本", "it's", "50% (off)", "${x}", "plain", "z.z"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write ten classes of one colour each, six files of six types, and files that are not samples."""
    random = np.random.default_rng(0)
    folder = tmp_path / "my pictures"
    for name in CLASSES:
        place = folder / name
        place.mkdir(parents=True)
        colour = random.integers(40, 216, 3)
        pixels = [np.clip(colour + random.integers(-20, 20, (20, 30, 3)), 0, 255).astype(np.uint8) for _ in range(6)]
        images = [Image.fromarray(part) for part in pixels]
        exif = Image.Exif()
        exif[0x0112] = 6
        images[0].save(place / "IMG_1.JPG", exif=exif)
        images[1].convert("L").save(place / "grey one.jpeg")
        images[2].convert("CMYK").save(place / "für=den,Druck.jpg")
        images[3].convert("P").save(place / "palette.PNG", transparency=0)
        images[4].convert("RGBA").save(place / "写真.webp")
        images[5].save(place / "scan.TIFF")
        (place / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (place / ".DS_Store").write_bytes(b"x")
        (place / "._IMG_1.JPG").write_bytes(b"no image")
        (place / "notes.txt").write_text("mine")
    (folder / "plain" / "empty" / "emptier").mkdir(parents=True)
    (folder / "nothing here").mkdir()
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "1.png").write_bytes(b"no image")
    (folder / "readme.txt").write_text("mine too")
    return folder


def test_only_images_are_samples(root: Path) -> None:
    with (
        pytest.warns(UserWarning, match="^data: 1 folders contain no image directly, and are ignored: .*nothing here$"),
        pytest.warns(UserWarning, match=r"^data: 21 files are no images in a class folder, and are .* \(.db, .txt"),
    ):
        samples = ImageFolderDataModule(root=str(root)).samples
    assert list(samples.class_names) == sorted(CLASSES)
    assert len(samples.labels) == 6 * len(CLASSES)


@pytest.mark.filterwarnings("ignore:data. 1 folders contain no image directly", "ignore:data. 21 files are no images")
def test_one_command_and_no_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_in(root.parent, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    words = ["datamodule=image_folder", f"datamodule.root='{root}'"]
    small = ["datamodule.num_workers=0", "encoder.widths=[4,8,8]", "trainer.accelerator=cpu", "trainer.max_steps=3"]
    assert command(*words, *small) == 0
    (run,) = (root.parent / "runs" / "train").iterdir()
    figures = json.loads((run / "metrics.json").read_text())
    assert 0 <= figures["test"]["recall_at_1"] <= 1 and figures["test"]["queries"] == 12
    page = (run / "report.html").read_text()
    assert "recall_at_1" in page and "data:image/" in page
