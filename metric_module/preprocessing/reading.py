"""Decoding of images of any kind to upright, opaque squares of 8 bits.

Legend: H x W = pixels of an image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from metric_module.errors import UserError

# Formats that Pillow recognises but does not decode by itself; for PostScript it would start another program.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file name extensions of every format that the installed Pillow decodes, in lower case."""
    formats = set(Image.OPEN) if Image.registered_extensions() else set()  # the call loads all formats
    extensions = Image.registered_extensions().items()
    return frozenset(name.lower() for name, kind in extensions if kind in formats - _NOT_DECODED)


def read_square(item: Any, size: int, box: tuple[int, ...] | None = None, background: int = 255) -> Image.Image:
    """Read a square of an image, upright, in RGB, with a background where it is transparent.

    Args:
        item: A path, an open file, the content of a file, a PIL image, or uint8 pixels: an array ``(H, W)``,
            ``(H, W, 3)`` or ``(H, W, 4)``, or a tensor ``(1, H, W)`` or ``(3, H, W)``.
        size: Side that will be needed; a JPEG may be decoded at a fraction of its size, but not below twice this.
        box: Left, top, right and bottom in pixels: take the smallest square around it; None: the central square.
        background: Grey value of the background, 0 to 255.

    Raises:
        UserError: The item is something else, or its pixels are floats or integers of 32 bits, whose range is
            undefined.
    """
    with _opened(item) as image:
        refuse_unknown_range(image)
        if box is None:
            image.draft("RGB", (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
        left, top, right, bottom = (0, 0, width, height) if box is None else box
        edge = max(1, min(max(right - left, bottom - top), width, height))
        left = min(max((left + right - edge) // 2, 0), width - edge)
        top = min(max((top + bottom - edge) // 2, 0), height - edge)
        return opaque(image.crop((left, top, left + edge, top + edge)), background)


def refuse_unknown_range(image: Image.Image) -> None:
    """Accept an image whose mode defines the value of white.

    Args:
        image: The image as opened, with its format.

    Raises:
        UserError: Pixels are floats or integers of 32 bits.
    """
    sixteen_bits = image.mode == "I" and image.format in {"PNG", "PPM"}  # Pillow's mode for 16 bits in these formats
    if image.mode == "F" or (image.mode == "I" and not sixteen_bits):
        raise UserError(f"expected pixels of 8 or 16 bits, got Pillow's mode {image.mode}: convert the image")


def opaque(image: Image.Image, background: int = 255) -> Image.Image:
    """Convert an image of 8 or 16 bits to RGB, with a background where it is transparent.

    16 bits are scaled by their full range.

    Args:
        image: The image.
        background: Grey value, 0 to 255.
    """
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        pixels = np.asarray(image)  # (H, W)
        grey = (pixels >> 8).clip(0, 255).astype(np.uint8)
        if "transparency" in image.info:
            grey[pixels == image.info["transparency"]] = background
        return Image.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    below = Image.new("RGBA", image.size, (background, background, background, 255))
    return Image.alpha_composite(below, image).convert("RGB")


@contextmanager
def _opened(item: Any) -> Iterator[Image.Image]:
    """Open an item as an image that may be changed."""
    if isinstance(item, Image.Image):
        copy = item.copy()
        copy.format = item.format
        yield copy
    elif isinstance(item, np.ndarray | Tensor):
        yield _from_pixels(item)
    elif isinstance(item, str | os.PathLike | bytes) or hasattr(item, "read"):
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            _scale_transparency(image)
            yield image
    else:
        raise UserError(f"expected an image: a path, bytes, a PIL image or pixels, got {type(item).__name__}")


def _from_pixels(item: np.ndarray | Tensor) -> Image.Image:
    """Make an image of an array ``(H, W)`` or ``(H, W, C)``, or of a tensor ``(C, H, W)``."""
    pixels = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
    if isinstance(item, Tensor) and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in {3, 4})):
        expected = "(C, H, W)" if isinstance(item, Tensor) else "(H, W) or (H, W, 3)"
        raise UserError(f"expected pixels as uint8 {expected}, got {item.dtype} {list(item.shape)}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG as Pillow scales its pixels.

    Pillow keeps the value of the file, with its 2, 4 or 16 bits, next to pixels of 8 bits, so that none is equal.
    """
    found = image.info.get("transparency")
    tiles: Any = getattr(image, "tile", [])
    mode = str(tiles[0].args) if image.format == "PNG" and tiles else ""
    if mode == "RGB;16B" and isinstance(found, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in found)
    elif mode in {"L;2", "L;4"} and isinstance(found, int):
        image.info["transparency"] = found * 255 // (3 if mode == "L;2" else 15)
