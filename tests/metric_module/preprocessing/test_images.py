"""One image is read exactly as the data modules read theirs, in whatever form it comes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules import ArraysDataModule, EmojiDataModule
from datamodules.emoji.datamodule import FOLDER, read_images
from datamodules.sources.images import ImageFiles
from datamodules.sources.images_in_memory import ImagesInMemory
from datamodules.sources.paths import Paths
from metric_module import UserError
from metric_module.preprocessing import ImageInput

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


def test_every_form_of_an_image_gives_the_same_input(tmp_path: Path) -> None:
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / "a.png")
    reading = ImageInput(8)
    expected = ImageFiles(Paths([str(tmp_path / "a.png")]), 8)(torch.tensor([0]))[0]
    content = (tmp_path / "a.png").read_bytes()
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    items: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), content, io.BytesIO(content), picture]
    for item in (*items, PIXELS, tensor):
        assert torch.equal(reading(item), expected), type(item)
    assert expected.shape == (3, 8, 8) and expected.min() < -0.3 and expected.max() > 0.3


def test_a_grey_image_of_each_form() -> None:
    grey = PIXELS[..., 0]
    expected = ImageInput(8)(Image.fromarray(grey))
    for item in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert torch.equal(ImageInput(8)(item), expected)


def test_an_image_that_is_given_is_not_changed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif)
    with Image.open(file) as picture:
        turned = ImageInput(20)(picture)
        assert picture.getexif()[0x0112] == 6
    assert torch.equal(turned, ImageInput(20)(np.rot90(PIXELS, -1)))


@pytest.mark.parametrize("size", [32, 48, 64, 96])
def test_an_emoji_alone_is_as_in_its_data_set(size: int) -> None:
    data = EmojiDataModule(image_size=size)
    assert data.preprocessing == ImageInput(size, resize="rounded_area")
    tiles = read_images(FOLDER, 3, 64)
    for tile, expected in zip(tiles, data.samples.fetch(torch.arange(3)), strict=True):
        picture = Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy())
        assert torch.equal(data.preprocessing(picture), expected)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (14, 3), (20, 1), (40, 3)])
def test_a_grey_image_in_memory_alone(size: int, channels: int) -> None:
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 1, 28, 28), dtype=np.uint8))
    source = ImagesInMemory(images, size, channels, background=0)
    alone = source.preprocessing(Image.fromarray(images[1, 0].numpy()))
    assert torch.equal(alone, source(torch.tensor([0, 1]))[1]) and alone.shape == (channels, size, size)
    colour = source.preprocessing(Image.fromarray(PIXELS))
    assert colour.shape == (channels, size, size) and torch.equal(colour[0], colour[-1])
    transparent = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    assert source.preprocessing(transparent).max() < -0.999


def test_images_of_another_size_in_memory_and_in_arrays() -> None:
    images = torch.from_numpy(PIXELS).permute(2, 0, 1)[None].contiguous()  # (1, 3, 20, 20)
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    arrays = ArraysDataModule(arrays={"inputs": images.repeat(20, 1, 1, 1), "labels": torch.arange(20) // 2})
    assert arrays.preprocessing == ImageInput(20, resize="area")
    for source in (ImagesInMemory(images, 20), arrays.samples.fetch):
        before: Tensor = source(torch.tensor([0]))[0]
        assert torch.equal(before, ImageInput(20)(file))
        for reading in (ImageInput(8), ImageInput(8, channels=1, grey=True), ImageInput(10, resize="area")):
            source.preprocess_as(reading)  # type: ignore[union-attr]
            assert torch.equal(source(torch.tensor([0]))[0], reading(file)), reading


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "expected an image: a path, bytes, a PIL image or pixels, got int"),
        (np.zeros((4, 4)), r"expected pixels as uint8 \(H, W\) or \(H, W, 3\), got float64 \[4, 4\]"),
        (np.zeros((4, 4, 2), np.uint8), r"expected pixels as uint8 .*, got uint8 \[4, 4, 2\]"),
        (torch.zeros(3, 4, 4), r"expected pixels as uint8 \(C, H, W\), got torch.float32 \[3, 4, 4\]"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), "expected pixels of 8 or 16 bits, got Pillow's mode I"),
    ],
)
def test_what_is_no_image_is_refused(item: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageInput(8)(item)
