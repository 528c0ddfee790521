"""Grey images in memory as inputs.

Legend: N images of T x T pixels, B of a batch, C channels, S x S pixels for the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.sampling.dataset import Source
from datamodules.sources.images import check_image_size
from datamodules.sources.pictures import as_pictures, resize
from metric_module.errors import UserError


class GreyImages(Source):
    """Images by id, as the encoder takes them.

    Args:
        images: Uint8 ``(N, T, T)``.
        image_size: S.
        channels: C, 1 or 3: three are copies of the one, for encoders that were trained on colours.

    Raises:
        UserError: The size is below 1, or there are neither 1 nor 3 channels.

    Example:
        >>> GreyImages(torch.zeros(5, 28, 28, dtype=torch.uint8), image_size=14, channels=3)(torch.tensor([4])).shape
        torch.Size([1, 3, 14, 14])
    """

    def __init__(self, images: Tensor, image_size: int, channels: int = 1) -> None:
        check_grey(image_size, channels)
        self.images = images
        self.image_size = image_size
        self.channels = channels

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Float32 images ``(B, C, S, S)`` in [-1, 1] of int64 ids ``(B,)``."""
        images = self.images[ids][:, None].float().div_(127.5).sub_(1)  # (B, 1, T, T)
        return resize(images, self.image_size).repeat(1, self.channels, 1, 1)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """The images."""
        return [*as_pictures(self(torch.tensor(list(ids), dtype=torch.int64)))]


def check_grey(image_size: int, channels: int) -> None:
    """Accept a size and a number of channels.

    Raises:
        UserError: The size is below 1, or there are neither 1 nor 3 channels.
    """
    check_image_size(image_size)
    if channels not in {1, 3}:
        raise UserError(f"expected channels of 1 or 3, got {channels}")
