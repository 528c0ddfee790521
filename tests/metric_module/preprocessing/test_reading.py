"""Transparency of PNG files of every depth, and the formats that are read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metric_module.preprocessing.reading import image_suffixes, read_square


def png(depth: int, colours: int, rows: bytes, transparent: tuple[int, ...]) -> io.BytesIO:
    """A PNG of 4 x 4 pixels with a transparent colour: a chunk tRNS of 16 bits for each channel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 4, 4, depth, colours, 0, 0, 0)
    colour = struct.pack(f">{len(transparent)}H", *transparent)
    parts = [(b"IHDR", head), (b"tRNS", colour), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def sixteen_bits(channels: int) -> bytes:
    """Rows of two black pixels and two of 40000."""
    pixels = np.repeat(np.array([0, 0, 40000, 40000], ">u2"), channels)
    return (b"\0" + pixels.tobytes()) * 4


@pytest.mark.parametrize(
    ("depth", "colours", "rows", "black", "bright", "level"),
    [
        (16, 0, sixteen_bits(1), (0,), (40000,), 156),
        (16, 2, sixteen_bits(3), (0, 0, 0), (40000, 40000, 40000), 156),
        (8, 0, b"\0\0\0\x64\x64" * 4, (0,), (100,), 100),
        (4, 0, b"\0\0\x66" * 4, (0,), (6,), 102),
        (2, 0, b"\0\x05" * 4, (0,), (1,), 85),
        (1, 0, b"\0\x30" * 4, (0,), (1,), 255),
    ],
)
def test_the_transparent_colour_of_a_png_is_white(
    depth: int, colours: int, rows: bytes, black: tuple[int, ...], bright: tuple[int, ...], level: int
) -> None:
    """Black is transparent, then the other colour; a third one is not."""
    cases = [(black, {255, level}), (bright, {0, 255})]
    if depth >= 8:
        cases.append(((7777 if depth == 16 else 77,) * len(black), {0, level}))
    for transparent, expected in cases:
        found = np.unique(np.array(read_square(png(depth, colours, rows, transparent), 4)))
        assert set(found.tolist()) == expected, transparent
    dark = np.array(read_square(png(depth, colours, rows, black), 4, background=7))
    assert dark[0, 0].tolist() == [7, 7, 7]


def test_every_format_that_pillow_decodes_has_its_suffixes(tmp_path: Path) -> None:
    assert {".png", ".jpg", ".jpeg", ".jfif", ".pgm", ".ppm", ".pbm", ".bmp", ".gif", ".tif"} <= image_suffixes()
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".txt", ".csv", ".npz", ".json"} & image_suffixes()
    for suffix in sorted(image_suffixes() & {".jfif", ".pgm", ".ppm", ".avif", ".webp", ".tga", ".jp2", ".qoi"}):
        mode = "L" if suffix == ".pgm" else "RGB"
        Image.new(mode, (8, 8)).save(tmp_path / f"a{suffix}")
        assert read_square(tmp_path / f"a{suffix}", 8).size == (8, 8)
