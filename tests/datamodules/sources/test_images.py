"""Tests of image decoding: all kinds become upright RGB on white."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from datamodules.sampling.dataset import BadSampleError
from datamodules.sources.images import ImageFiles, StoredImages
from datamodules.sources.paths import Paths
from datamodules.sources.preflight import check_images
from metric_module.preprocessing import ImageInput

RAMP = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))  # (32, 32), dark at the left
HALF = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8)  # (32, 32)


def read(image: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    """Save an image and read it at 8 pixels."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return ImageInput(8).pixels(file)


def test_grey_values_survive_in_every_mode() -> None:
    plain = read(Image.fromarray(RAMP).convert("RGB")).astype(int)
    assert plain[0, 0].tolist() == [15, 15, 15] and plain[0, 7].tolist() == [239, 239, 239]
    sixteen_bits = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert sixteen_bits.mode == "I;16"
    for image in (Image.fromarray(RAMP), Image.fromarray(RAMP).convert("P"), sixteen_bits):
        assert abs(read(image) - plain).max() <= 1, image.mode
    ink = np.stack([np.zeros_like(RAMP)] * 3 + [255 - RAMP], axis=2)
    assert abs(read(Image.frombytes("CMYK", (32, 32), ink.tobytes()), "JPEG", quality=100) - plain).max() <= 2
    assert abs(read(Image.fromarray(RAMP), "JPEG", quality=100) - plain).max() <= 2


def test_sixteen_bits_in_every_format() -> None:
    plain = read(Image.fromarray(RAMP)).astype(int)
    sixteen_bits = RAMP.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        assert abs(read(Image.fromarray(sixteen_bits), kind) - plain).max() <= 1, kind
    file = io.BytesIO(b"P5 32 32 65535\n" + sixteen_bits.astype(">u2").tobytes())  # mode I, as PNG with older Pillow
    assert abs(ImageInput(8).pixels(file) - plain).max() <= 1


@pytest.mark.parametrize("pixels", [RAMP.astype(np.float32) / 255, RAMP.astype(np.int32)])
def test_pixels_of_undefined_range_are_refused(pixels: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.tif")
    reason = rf"a.tif \(expected pixels of 8 or 16 bits, got Pillow's mode {image.mode}: convert the image\)"
    paths = Paths([str(tmp_path / "a.tif")])
    (message,), _ = check_images(paths, None)
    assert re.match(f"1 files that cannot be read: .*{reason}$", message)
    with pytest.raises(BadSampleError, match=reason):
        ImageFiles(paths, 8)(torch.tensor([0]))


def test_what_is_transparent_is_white() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    layers = [Image.fromarray(np.dstack([black, HALF])), Image.fromarray(np.dstack([black[..., 0], HALF]))]
    for image in layers:
        found = read(image)
        assert found[:, :3].min() == 255, "transparent at the left"
        assert found[:, 5:].max() == 0
    palette = Image.fromarray(HALF).convert("P")
    assert read(palette, transparency=0).min() == 255
    assert read(palette)[:, 0].max() == 0


@pytest.mark.parametrize(("orientation", "edge"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_the_camera_says_what_is_up(orientation: int, edge: str) -> None:
    """The left side is dark as stored; orientation 6, for example, turns it clockwise by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(Image.fromarray(np.hstack([HALF, HALF[:, 16:]])), "JPEG", quality=100, exif=exif)
    middle = found[..., 0].astype(int)
    sides = {"left": middle[:, 0], "right": middle[:, 7], "top": middle[0], "bottom": middle[7]}
    assert {name for name, pixels in sides.items() if pixels.max() < 50} == {edge}


def test_inputs_are_pixels_between_minus_one_and_one(tmp_path: Any) -> None:
    Image.fromarray(HALF).save(tmp_path / "a.png")
    inputs = ImageFiles(Paths([str(tmp_path / "a.png")]), 8)(torch.tensor([0, 0]))
    assert inputs.shape == (2, 3, 8, 8)
    assert torch.all(inputs[..., 0] == -1) and torch.all(inputs[..., 7] == 1)


def test_images_in_a_column_come_as_content_or_as_paths(tmp_path: Any) -> None:
    Image.fromarray(HALF).save(tmp_path / "a.png")
    content, path = (tmp_path / "a.png").read_bytes(), str(tmp_path / "a.png")
    stored = [{"bytes": content, "path": "a.png"}, {"bytes": None, "path": path}, {"bytes": None, "path": "gone.png"}]
    images = StoredImages(pa.chunked_array([pa.array(stored)]), 8)
    expected = ImageFiles(Paths([path]), 8)(torch.tensor([0]))
    assert torch.equal(images(torch.tensor([1, 0])), expected.expand(2, -1, -1, -1))
    with pytest.raises(BadSampleError, match=r"row 2 \(\[Errno 2\] No such file or directory: 'gone.png'\)"):
        images(torch.tensor([0, 2]))
    assert images.show([2]) == ["row 2"]
