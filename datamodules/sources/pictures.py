"""Conversion of encoder inputs to pictures, for people.

Legend: B = images, C = channels, S = side in pixels.
"""

from __future__ import annotations

from PIL import Image
from torch import Tensor


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
