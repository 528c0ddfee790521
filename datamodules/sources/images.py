"""Image files as inputs.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torch import Tensor
from typing_extensions import override

from datamodules.sampling.dataset import BadSampleError, Source, listed
from datamodules.sources.pictures import as_pictures
from datamodules.sources.preflight import ManyPaths, bad_images, refuse_unknown_range
from metric_module.errors import UserError


class ImageFiles(Source):
    """Images by id, as the encoder takes them.

    Args:
        paths: The file of each, N.
        image_size: S.
        cache_dir: Where the preflight remembers what it read; None: ``lightning-triplets`` in the user's cache folder.
        boxes: What to look at in each, see :func:`read_image`: left, top, right, bottom, int64 ``(N, 4)``; None: all.
        same_in_two_splits: Whether the preflight accepts files of the same content in two splits.

    Raises:
        UserError: The size is below 1.
    """

    def __init__(
        self,
        paths: ManyPaths,
        image_size: int,
        cache_dir: str | None = None,
        boxes: Tensor | None = None,
        same_in_two_splits: bool = False,
    ) -> None:
        check_image_size(image_size)
        self.paths = paths
        self.same_in_two_splits = same_in_two_splits
        self.boxes = boxes
        self.image_size = image_size
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.cache_dir = Path(home) / "lightning-triplets" if cache_dir is None else Path(cache_dir)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, 3, S, S)`` in [-1, 1] of int64 ids ``(B,)``.

        Raises:
            BadSampleError: The first file that cannot be read.
        """
        return _read_all(ids, self._read, self.image_size, self.paths.__getitem__)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The images; of a file that cannot be read any more, its name."""
        return _show_all(self, ids, lambda row: Path(self.paths[row]).name)

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Every file is read once, in parallel; again only if its size or time changes."""
        return bad_images(self.paths, {} if self.same_in_two_splits else splits, self.cache_dir / "files.sqlite")

    def _read(self, row: int) -> np.ndarray:
        box = None if self.boxes is None else tuple(self.boxes[row].tolist())
        return read_image(self.paths[row], self.image_size, box)


class StoredImages(Source):
    """Images that a column of a table holds, as the content of files or as paths.

    Args:
        column: ``{"bytes": ..., "path": ...}`` for each, N; bytes come first.
        image_size: S.

    Raises:
        UserError: The size is below 1.
    """

    def __init__(self, column: pa.ChunkedArray, image_size: int) -> None:
        check_image_size(image_size)
        self.column = column
        self.image_size = image_size

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, 3, S, S)`` in [-1, 1] of int64 ids ``(B,)``.

        Raises:
            BadSampleError: The first image that cannot be read.
        """
        return _read_all(ids, self._read, self.image_size, "row {}".format)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The images; of one that cannot be read, its row."""
        return _show_all(self, ids, "row {}".format)

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Every image is decoded once."""
        bad: list[str] = []
        places: dict[bytes, dict[str, int]] = {}
        for split, ids in splits.items():
            for row in ids.tolist():
                content = self.column[row].as_py()["bytes"]
                if content is not None:
                    places.setdefault(hashlib.sha256(content).digest(), {}).setdefault(split, row)
                try:
                    self(torch.tensor([row]))
                except BadSampleError as error:
                    bad.append(error.reason)
        twice = [
            " = ".join(f"row {row} ({split})" for split, row in found.items())
            for found in places.values()
            if len(found) > 1
        ]
        return [*listed("images cannot be read", bad), *listed("images are in two splits", twice)]

    def _read(self, row: int) -> np.ndarray:
        stored = self.column[row].as_py()
        file = str(stored["path"]) if stored["bytes"] is None else io.BytesIO(stored["bytes"])
        return read_image(file, self.image_size)


def _read_all(ids: Tensor, read: Callable[[int], np.ndarray], size: int, name_of: Callable[[int], str]) -> Tensor:
    """Images ``(B, 3, S, S)`` of ids ``(B,)``; what cannot be read is named."""
    images = torch.empty(len(ids), size, size, 3, dtype=torch.uint8)
    for place, row in enumerate(ids.tolist()):
        try:
            images[place] = torch.from_numpy(read(row))
        except Exception as error:  # Pillow raises many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadSampleError(row, f"{name_of(row)} ({reason})") from error
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _show_all(fetch: Source, ids: Sequence[int], name_of: Callable[[int], str]) -> list[Image.Image | str]:
    """Pictures; of what cannot be read any more, the name."""
    shown: list[Image.Image | str] = []
    for row in ids:
        try:
            shown += as_pictures(fetch(torch.tensor([row])))
        except BadSampleError:
            shown.append(name_of(row))
    return shown


def read_image(source: str | IO[bytes], size: int, box: tuple[int, ...] | None = None) -> np.ndarray:
    """A square of an image, upright, on white where it is transparent: uint8 ``(S, S, 3)``.

    Args:
        source: A file, or its content.
        size: S.
        box: Left, top, right and bottom, in pixels: the smallest square around it in the image; None: the middle one.

    Raises:
        UserError: Its pixels are floats, or integers of 32 bits, whose range cannot be known.
    """
    with Image.open(source) as image:
        refuse_unknown_range(image)
        if box is None:
            image.draft("RGB", (2 * size, 2 * size))  # lets a JPEG be decoded at a fraction of its size
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
        left, top, right, bottom = (0, 0, width, height) if box is None else box
        edge = max(1, min(max(right - left, bottom - top), width, height))
        left = min(max((left + right - edge) // 2, 0), width - edge)
        top = min(max((top + bottom - edge) // 2, 0), height - edge)
        square = image.crop((left, top, left + edge, top + edge))
        return np.array(on_white(square).resize((size, size), Image.Resampling.BILINEAR))


def on_white(image: Image.Image) -> Image.Image:
    """An image of 8 or 16 bits in RGB, laid on white where it is transparent; 16 bits by their full range."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def check_image_size(size: int) -> None:
    """Accept a size.

    Raises:
        UserError: It is below 1.
    """
    if size < 1:
        raise UserError(f"datamodule.image_size: expected an integer >= 1, got {size}")
