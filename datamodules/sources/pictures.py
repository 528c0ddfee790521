"""Conversions of images: bytes to encoder inputs, sizes, and encoder inputs to pictures.

Legend: B = images, C = channels, T = side in pixels before, S = side after.
"""

from __future__ import annotations

import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def as_inputs(images: Tensor) -> Tensor:
    """Map bytes to float32 in [-1, 1], in the same shape."""
    return images.float().div_(127.5).sub_(1)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize ``(B, C, T, T) -> (B, C, S, S)``: area average if S divides T, otherwise antialiased bilinear.

    Args:
        images: Float images.
        size: S.
    """
    old = images.shape[-1]
    if old % size == 0:
        return F.avg_pool2d(images, old // size) if size < old else images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Convert images ``(B, C, S, S)`` in [-1, 1], with one channel (grey) or three, to pictures.

    Example:
        >>> import torch
        >>> as_pictures(torch.full((1, 3, 2, 2), 1.0))[0].getpixel((0, 0))
        (255, 255, 255)
    """
    pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte()  # (B, C, S, S)
    pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # (B, S, S, 3)
    return [Image.fromarray(picture.numpy()) for picture in pixels.contiguous().cpu()]
