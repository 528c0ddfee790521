"""Images of every kind become upright RGB on white."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.files import Paths
from datamodules.images import ImageFiles, read_image
from metric_module.errors import UserError

RAMP = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))  # (32, 32), dark at the left
HALF = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8)  # (32, 32)


def read(image: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    """What is read of an image that was saved, at 8 pixels."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return read_image(file, 8)


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
    """Dark at the left as stored: orientation 6 turns it clockwise by a quarter, and so on."""
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
    assert (inputs[..., 0].unique().item(), inputs[..., 7].unique().item()) == (-1, 1)
    with pytest.raises(UserError, match="expected image_size >= 1, got 0"):
        ImageFiles(Paths([]), 0)
