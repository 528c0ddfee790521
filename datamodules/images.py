"""Image files as inputs.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from typing_extensions import override

from datamodules.files import Paths, bad_images
from datamodules.pictures import as_pictures
from datamodules.samples import BadSampleError, Source
from metric_module.errors import UserError


class ImageFiles(Source):
    """Images by id, as the encoder takes them.

    Args:
        paths: The file of each, N.
        image_size: S.
        cache_dir: Where the preflight remembers what it read; None: ``lightning-triplets`` in the user's cache folder.

    Raises:
        UserError: The size is below 1.
    """

    def __init__(self, paths: Paths, image_size: int, cache_dir: str | None = None) -> None:
        check_image_size(image_size)
        self.paths = paths
        self.image_size = image_size
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.cache_dir = Path(home) / "lightning-triplets" if cache_dir is None else Path(cache_dir)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, 3, S, S)`` in [-1, 1] of int64 ids ``(B,)``.

        Raises:
            BadSampleError: The first file that cannot be read.
        """
        images = torch.empty(len(ids), self.image_size, self.image_size, 3, dtype=torch.uint8)
        for place, row in enumerate(ids.tolist()):
            try:
                images[place] = torch.from_numpy(read_image(self.paths[row], self.image_size))
            except Exception as error:  # Pillow raises many kinds
                raise BadSampleError(row, f"{self.paths[row]} ({str(error).splitlines()[0]})") from error
        return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The images; of a file that cannot be read any more, its name."""
        shown: list[Image.Image | str] = []
        for row in ids:
            try:
                shown += as_pictures(self(torch.tensor([row])))
            except BadSampleError:
                shown.append(Path(self.paths[row]).name)
        return shown

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Every file is read once, in parallel; again only if its size or time changes."""
        return bad_images(self.paths, splits, self.cache_dir / "files.sqlite")


def read_image(source: str | IO[bytes], size: int) -> np.ndarray:
    """The middle square of an image, upright, on white where it is transparent: uint8 ``(S, S, 3)``.

    Args:
        source: A file, or its content.
        size: S.
    """
    with Image.open(source) as image:
        image.draft("RGB", (2 * size, 2 * size))  # lets a JPEG be decoded at a fraction of its size
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        square = image.crop((left, top, left + edge, top + edge))
        return np.array(on_white(square).resize((size, size), Image.Resampling.BILINEAR))


def on_white(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB, laid on white where it is transparent."""
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
        raise UserError(f"expected image_size >= 1, got {size}")
