"""From the encoder's inputs back to pictures.

Legend: B images of S x S pixels.
"""

from __future__ import annotations

from PIL import Image
from torch import Tensor


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Pictures of images ``(B, 3, S, S)`` in [-1, 1].

    Example:
        >>> import torch
        >>> as_pictures(torch.full((1, 3, 2, 2), 1.0))[0].getpixel((0, 0))
        (255, 255, 255)
    """
    pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)  # (B, S, S, 3)
    return [Image.fromarray(picture.numpy()) for picture in pixels.contiguous().cpu()]
