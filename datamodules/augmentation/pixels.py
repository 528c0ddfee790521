"""Augmentation of a batch of images, as a pure function of the images and one key per image.

Legend: B = images, C = channels, H x W = pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_module.errors import UserError
from metric_module.functional import at_least_float32
from metric_module.keyed_random import keyed_uniform

DRAWS = 16
LARGEST = {"rotation": 180.0, "scale": math.inf, "shear": 60.0, "hue": 180.0}
"""Maximum of each strength; 1 for all others."""


@dataclass(unsafe_hash=True)  # not frozen: ddp_spawn copies a data module field by field, and would reject it
class Augment:
    """Random affine map, colour change and erased rectangle for each image of a batch.

    Each image is resampled once (bilinear; outside of the image is ``fill``). Then one matrix maps its colours:
    ``x -> contrast * M(hue, saturation) (x - mid) + mid + brightness``, where M rotates colours around the grey axis
    and scales their distance to it. Every draw has a fixed position in the stream of the image's key, so changing one
    strength does not change the draws of the others.

    Args:
        rotation: Maximum angle in either direction, in degrees.
        scale: Size changes by a log-uniform factor between 1 / (1 + scale) and 1 + scale.
        shift: Maximum shift along each axis, as a share of the side.
        shear: Maximum horizontal shear in either direction, in degrees.
        flip: Probability of a left-right flip.
        hue: Maximum hue rotation in either direction, in degrees (three channels only).
        saturation: Saturation changes by a factor between 1 - saturation and 1 + saturation.
        brightness: Maximum change in either direction, as a share of the value range.
        contrast: Contrast changes by a factor between 1 - contrast and 1 + contrast.
        grey: Probability of conversion to grey.
        erase: Probability of erasing a rectangle.
        erase_area: Maximum share of the image that is erased; the aspect ratio is between 1/2 and 2.
        fill: Value of erased pixels and of pixels from outside the image.
        low: Minimum pixel value; results are clamped.
        high: Maximum pixel value.

    Raises:
        UserError: A strength is out of range.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> augment = Augment()
        >>> torch.equal(augment(images, torch.tensor([1, 2])), augment(images, torch.tensor([1, 2])))
        True
    """

    rotation: float = 12.0
    scale: float = 0.2
    shift: float = 0.04
    shear: float = 6.0
    flip: float = 0.5
    hue: float = 14.0
    saturation: float = 0.25
    brightness: float = 0.09
    contrast: float = 0.25
    grey: float = 0.05
    erase: float = 0.2
    erase_area: float = 0.15
    fill: float = 1.0
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the strengths."""
        for name in (field.name for field in fields(self) if field.name not in {"fill", "low", "high"}):
            largest = LARGEST.get(name, 1.0)
            if not 0 <= getattr(self, name) <= largest:
                raise UserError(f"expected augmentation strength 0 <= {name} <= {largest:g}, got {getattr(self, name)}")
        if not self.low < self.high:
            raise UserError(f"expected low < high, got low={self.low} and high={self.high}")

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: Float ``(B, C, H, W)``.
            keys: Int64 ``(B,)``; see :func:`metric_module.keyed_random.combine`.

        Returns:
            New images, ``(B, C, H, W)``, in the type of the images; computed in float32 or float64.

        Raises:
            UserError: The images have another shape or type, or ``hue`` is set and they do not have three channels.
        """
        if images.ndim != 4 or not images.is_floating_point():
            shape = tuple(images.shape)
            raise UserError(f"expected float images of shape (B, C, H, W), got {images.dtype} of shape {shape}")
        if self.hue and images.shape[1] != 3:
            raise UserError(f"hue={self.hue} needs images of 3 channels, got {images.shape[1]}")
        pixels = at_least_float32(images)  # (B, C, H, W)
        draws = keyed_uniform(keys, DRAWS).to(pixels.dtype)  # (B, 16)
        grid = self._grid(draws, *pixels.shape[2:])
        # Zeros from outside of the image become ``fill``, which the colour offset adds back.
        moved = F.grid_sample(pixels - self.fill, grid, padding_mode="zeros", align_corners=False)  # (B, C, H, W)
        matrix, offset = self._colours(draws, images.shape[1])
        coloured = torch.baddbmm(offset, matrix, moved.flatten(2)).view_as(moved)  # (B, C, H, W)
        return self._erase(coloured.clamp_(self.low, self.high), draws).to(images.dtype)

    def _grid(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Compute the source position of each pixel, in coordinates from -1 to 1: ``(B, H, W, 2)``."""
        angle = math.radians(self.rotation) * _either_way(draws[:, 0])  # (B,)
        size = torch.exp(math.log1p(self.scale) * _either_way(draws[:, 1]))
        shift = 2 * self.shift * _either_way(draws[:, 2:4])  # (B, 2)
        shear = torch.tan(math.radians(self.shear) * _either_way(draws[:, 4]))
        mirror = torch.where(draws[:, 5] < self.flip, -1.0, 1.0) / size
        cos, sin = torch.cos(angle), torch.sin(angle)
        aspect = height / width
        x_axis = torch.stack([(cos + shear * sin) * mirror, sin / aspect / size], dim=1)  # (B, 2)
        y_axis = torch.stack([(shear * cos - sin) * aspect * mirror, cos / size], dim=1)  # (B, 2)
        x = (torch.arange(width, device=draws.device, dtype=draws.dtype) * 2 + 1) / width - 1  # (W,)
        y = (torch.arange(height, device=draws.device, dtype=draws.dtype) * 2 + 1) / height - 1  # (H,)
        columns = x[:, None] * x_axis[:, None] + shift[:, None]  # (B, W, 2)
        rows = y[:, None] * y_axis[:, None]  # (B, H, 2)
        return columns[:, None] + rows[:, :, None]  # (B, H, W, 2)

    def _colours(self, draws: Tensor, channels: int) -> tuple[Tensor, Tensor]:
        """Compute colour matrix ``(B, C, C)`` and offset ``(B, C, 1)``, for pixels relative to ``fill``."""
        angle = math.radians(self.hue) * _either_way(draws[:, 6])  # (B,)
        saturation = 1 + self.saturation * _either_way(draws[:, 7])
        brightness = (self.high - self.low) * self.brightness * _either_way(draws[:, 8])
        contrast = 1 + self.contrast * _either_way(draws[:, 9])
        saturation = torch.where(draws[:, 10] < self.grey, 0.0, saturation)
        grey = torch.full((channels, channels), 1 / channels, device=draws.device, dtype=draws.dtype)  # (C, C)
        colour = torch.eye(channels, device=draws.device, dtype=draws.dtype) - grey  # (C, C), the part that is not grey
        matrix = grey + (saturation * torch.cos(angle))[:, None, None] * colour  # (B, C, C)
        if self.hue:
            turn = (colour.roll(1, 0) - colour.roll(-1, 0)) / math.sqrt(
                3
            )  # (C, C), a quarter rotation around the grey axis
            matrix = matrix + (saturation * torch.sin(angle))[:, None, None] * turn
        mid = (self.low + self.high) / 2
        offset = contrast * (self.fill - mid) + mid + brightness  # (B,), the matrix does not change grey
        return contrast[:, None, None] * matrix, offset[:, None, None].expand(-1, channels, 1)

    def _erase(self, images: Tensor, draws: Tensor) -> Tensor:
        """Fill a rectangle of some images with ``fill``, in place."""
        if not self.erase:
            return images
        area = torch.where(draws[:, 11] < self.erase, self.erase_area * draws[:, 12], 0.0)  # (B,)
        ratio = torch.exp2(_either_way(draws[:, 13]))
        inside = []
        for side, length, centre in ((2, torch.sqrt(area * ratio), 14), (3, torch.sqrt(area / ratio), 15)):
            pixels = images.shape[side]
            place = (torch.arange(pixels, device=draws.device, dtype=draws.dtype) + 0.5) / pixels  # (H,) or (W,)
            inside.append((place - draws[:, centre, None]).abs() < length[:, None] / 2)  # (B, H) or (B, W)
        mask = inside[0][:, :, None] & inside[1][:, None, :]  # (B, H, W)
        return images.masked_fill_(mask[:, None], self.fill)


AugmentFunction = Augment | Callable[[Tensor, Tensor], Tensor]
"""Maps inputs ``(B, ...)`` and one key for each, int64 ``(B,)``, to new inputs; LightningCLI reads `Augment`."""

IMAGE_AUGMENT = Augment()
"""Default augmentation of data modules of images."""


def _either_way(draw: Tensor) -> Tensor:
    """Map a draw from [0, 1) to [-1, 1)."""
    return 2 * draw - 1
