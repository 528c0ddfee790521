"""Sources of images that are decoded when a batch needs them: files, and images stored in a column.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed, reason_of
from datamodules.sampling.dataset import BadSampleError, Source
from datamodules.sources.paths import ManyPaths
from datamodules.sources.pictures import as_inputs, as_pictures
from datamodules.sources.preflight import bad_images, refuse_unknown_range, same_content


class DecodedImages(Source):
    """Images by id, each decoded by :meth:`decode`.

    Args:
        image_size: S.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    @abstractmethod
    def decode(self, row: int) -> np.ndarray:
        """Decode one image to uint8 ``(S, S, 3)``."""

    @abstractmethod
    def name_of(self, row: int) -> str:
        """Name one image, for messages."""

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Decode images to float32 ``(B, 3, S, S)`` in [-1, 1].

        Args:
            ids: Samples, int64 ``(B,)``.

        Raises:
            BadSampleError: The first image that cannot be read.
        """
        images = torch.empty(len(ids), self.image_size, self.image_size, 3, dtype=torch.uint8)
        for place, row in enumerate(ids.tolist()):
            try:
                images[place] = torch.from_numpy(self.decode(row))
            except Exception as error:  # Pillow raises many kinds
                raise BadSampleError(row, f"{self.name_of(row)} ({reason_of(error)})") from error
        return as_inputs(images.permute(0, 3, 1, 2))

    @override
    def names(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each file, with the folder that it lies in.

        Args:
            ids: Samples.
        """
        return ["/".join(Path(self.name_of(row)).parts[-2:]) for row in ids]

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """Return the images as pictures; the name of an image that can no longer be read.

        Args:
            ids: Samples.
        """
        shown: list[Image.Image | str] = []
        for row in ids:
            try:
                shown += as_pictures(self(torch.tensor([row])))
            except BadSampleError:
                shown.append(Path(self.name_of(row)).name)
        return shown


class ImageFiles(DecodedImages):
    """Image files by id.

    Args:
        paths: File of each image, N.
        image_size: S.
        cache_dir: Folder in which the preflight remembers files it has read; None: ``lightning-triplets`` in the user's
            cache folder.
        boxes: Box of each image to crop, see :func:`read_image`: left, top, right, bottom, int64 ``(N, 4)``; None: no
            crop.
        same_in_two_splits: Whether the preflight accepts files of the same content in two splits.
    """

    def __init__(
        self,
        paths: ManyPaths,
        image_size: int,
        cache_dir: str | None = None,
        boxes: Tensor | None = None,
        same_in_two_splits: bool = False,
    ) -> None:
        super().__init__(image_size)
        self.paths = paths
        self.same_in_two_splits = same_in_two_splits
        self.boxes = boxes
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.cache_dir = Path(home) / "lightning-triplets" if cache_dir is None else Path(cache_dir)

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Read every file once, in parallel, and again only if its size or time of change differs.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        return bad_images(self.paths, {} if self.same_in_two_splits else splits, self.cache_dir / "files.sqlite")

    @override
    def decode(self, row: int) -> np.ndarray:
        """Read and crop one file to uint8 ``(S, S, 3)``."""
        box = None if self.boxes is None else tuple(self.boxes[row].tolist())
        return read_image(self.paths[row], self.image_size, box)

    @override
    def name_of(self, row: int) -> str:
        """Return the path of one file."""
        return self.paths[row]


class StoredImages(DecodedImages):
    """Images stored in a column of a table, as the content of files or as paths.

    Args:
        column: ``{"bytes": ..., "path": ...}`` for each image, N; the path is used where there are no bytes.
        image_size: S.
    """

    def __init__(self, column: pa.ChunkedArray, image_size: int) -> None:
        super().__init__(image_size)
        self.column = column

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Decode every image once.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        bad: list[str] = []
        found: list[tuple[str, str, str]] = []
        for split, ids in splits.items():
            for row in ids.tolist():
                content = self.column[row].as_py()["bytes"]
                digest = "" if content is None else hashlib.sha256(content).hexdigest()
                found.append((digest, self.name_of(row), split))
                try:
                    self(torch.tensor([row]))
                except BadSampleError as error:
                    bad.append(error.reason)
        return [*listed("images cannot be read", bad), *listed("images are in two splits", same_content(found))]

    @override
    def decode(self, row: int) -> np.ndarray:
        """Decode one image to uint8 ``(S, S, 3)``."""
        stored = self.column[row].as_py()
        file = str(stored["path"]) if stored["bytes"] is None else io.BytesIO(stored["bytes"])
        return read_image(file, self.image_size)

    @override
    def name_of(self, row: int) -> str:
        """Return the number of one row in words."""
        return f"row {row}"


def read_image(source: str | IO[bytes], size: int, box: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a square of an image, upright, with transparency on white: uint8 ``(S, S, 3)``.

    Args:
        source: A file, or its content.
        size: S.
        box: Left, top, right and bottom in pixels: take the smallest square around it; None: the central square.

    Raises:
        UserError: Pixels are floats or integers of 32 bits, whose range is undefined.
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
    """Convert an image of 8 or 16 bits to RGB, with transparency on white; 16 bits are scaled by their full range."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
