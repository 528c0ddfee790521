"""Preprocessing of images: files, pictures and pixels become encoder inputs.

Legend: B = images, C = channels of an input, c = channels as stored, T = side in pixels before, S = side after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.preprocessing.arrays import scaled
from metric_module.preprocessing.base import Preprocessing, check_integer, check_one_of
from metric_module.preprocessing.reading import read_square

BILINEAR, AREA, ROUNDED_AREA = "bilinear", "area", "rounded_area"


@dataclass(frozen=True)
class ImageInput(Preprocessing):
    """An image as float32 ``(C, S, S)``: upright, the central square, on a plain background, resized and normalised.

    Args:
        size: S.
        channels: C, 1 or 3.
        grey: Whether colours are removed; with three channels these are equal then.
        resize: ``bilinear``: Pillow's bilinear filter on bytes. ``area``: the average of each area if S divides T,
            otherwise bilinear with antialiasing, on floats. ``rounded_area``: the same, rounded to bytes when an image
            is made smaller.
        background: Grey value where an image is transparent, 0 to 255.
        mean: Subtracted from pixels in [0, 1].
        std: Divisor after that.

    Raises:
        UserError: A value is none of these.

    Example:
        >>> ImageInput(size=2)(Image.new("L", (9, 8), 255)).unique()
        tensor([1.])
    """

    kind: ClassVar[str] = "image"

    size: int
    channels: int = 3
    grey: bool = False
    resize: str = BILINEAR
    background: int = 255
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        check_integer("size", self.size)
        check_one_of("channels", self.channels, (1, 3))
        check_one_of("grey", self.grey, (True,) if self.channels == 1 else (True, False))
        check_one_of("resize", self.resize, (BILINEAR, AREA, ROUNDED_AREA))
        check_integer("background", self.background, least=0)
        if self.background > 255:
            raise UserError(f"preprocessing: background: expected an integer from 0 to 255, got {self.background}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or (name == "std" and value <= 0):
                least = "> 0" if name == "std" else "that is finite"
                raise UserError(f"preprocessing: {name}: expected a number {least}, got {value!r}")

    @override
    def __call__(self, item: Any) -> Tensor:
        """Read one image as float32 ``(C, S, S)``.

        Args:
            item: See :func:`metric_module.preprocessing.reading.read_square`.

        Raises:
            UserError: The item is no image, or the range of its pixels is undefined.
        """
        return self.inputs([self.pixels(item)])[0]

    def pixels(self, item: Any, box: tuple[int, ...] | None = None) -> np.ndarray:
        """Decode the bytes of a square: uint8 ``(T, T, c)``, with T = S if the filter is ``bilinear``.

        Args:
            item: See :func:`metric_module.preprocessing.reading.read_square`.
            box: The part to use, in the same function.
        """
        square = read_square(item, self.size, box, self.background)
        if self.grey:
            square = square.convert("L")
        if self.resize == BILINEAR:
            square = square.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.atleast_3d(np.array(square))

    def inputs(self, squares: Sequence[np.ndarray]) -> Tensor:
        """Convert decoded squares to float32 ``(B, C, S, S)``.

        Args:
            squares: Results of :meth:`pixels`, B.
        """
        if all(len(square) == self.size for square in squares):
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)  # (B, c, S, S)
            return self._with_channels(scaled(pixels, self.mean, self.std))
        single = [torch.from_numpy(square).permute(2, 0, 1)[None].contiguous() for square in squares]
        return torch.cat([self.inputs_of_tensor(pixels) for pixels in single])

    def inputs_of_tensor(self, pixels: Tensor) -> Tensor:
        """Convert stored images of one size to float32 ``(B, C, S, S)``.

        Args:
            pixels: Uint8 ``(B, c, T, T)``, c = 1 or 3.
        """
        if (self.grey and pixels.shape[1] == 3) or (self.resize == BILINEAR and pixels.shape[-1] != self.size):
            return self.inputs([self.pixels(image) for image in pixels])
        if self.resize == ROUNDED_AREA and pixels.shape[-1] > self.size:
            pixels = resize(pixels.float(), self.size).round_().clamp_(0, 255).byte()
        return self._with_channels(resize(scaled(pixels, self.mean, self.std), self.size))

    def _with_channels(self, inputs: Tensor) -> Tensor:
        """Repeat a single channel: ``(B, c, S, S) -> (B, C, S, S)``."""
        return inputs if inputs.shape[1] == self.channels else inputs.repeat(1, self.channels, 1, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize ``(B, c, T, T) -> (B, c, S, S)``: area average if S divides T, otherwise antialiased bilinear.

    Args:
        images: Float images.
        size: S.
    """
    old = images.shape[-1]
    if old % size == 0:
        return F.avg_pool2d(images, old // size) if size < old else images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
