"""Images in memory: to another size, and from the encoder's inputs back to pictures.

Legend: B images of C channels, T x T pixels before, S x S after.
"""

from __future__ import annotations

import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def resize(images: Tensor, size: int) -> Tensor:
    """Area average where the size divides the old one, else antialiased bilinear: ``(B, C, T, T) -> (B, C, S, S)``."""
    old = images.shape[-1]
    if old % size == 0:
        return F.avg_pool2d(images, old // size) if size < old else images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Pictures of images ``(B, C, S, S)`` in [-1, 1], of one channel (grey) or three.

    Example:
        >>> import torch
        >>> as_pictures(torch.full((1, 3, 2, 2), 1.0))[0].getpixel((0, 0))
        (255, 255, 255)
    """
    pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte()  # (B, C, S, S)
    pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # (B, S, S, 3)
    return [Image.fromarray(picture.numpy()) for picture in pixels.contiguous().cpu()]
