"""Source of images that are held in memory.

Legend: N = images, T = side in pixels as stored, B = images in a batch, C = channels, S = side of an encoder input.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.sampling.dataset import Source, int64_ids
from datamodules.sources.duplicates import Hashes, hash_rows
from datamodules.sources.pictures import as_pictures
from metric_module.preprocessing import ImageInput
from metric_module.preprocessing.images import AREA


class ImagesInMemory(Source):
    """Images by id, scaled to the size of an encoder input.

    Args:
        images: Uint8 ``(N, 1, T, T)`` (grey) or ``(N, 3, T, T)``.
        image_size: S.
        channels: C, 1 or 3; a grey image is repeated for encoders that were trained on colour images.
        resize: See :class:`metric_module.preprocessing.ImageInput`.
        background: Grey value of the background of these images, for transparent images that are read alike.

    Example:
        >>> import torch
        >>> images = ImagesInMemory(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), image_size=14, channels=3)
        >>> images(torch.tensor([4])).shape
        torch.Size([1, 3, 14, 14])
    """

    preprocessing: ImageInput

    def __init__(
        self, images: Tensor, image_size: int, channels: int = 3, resize: str = AREA, background: int = 255
    ) -> None:
        self.images = images
        grey = images.shape[1] == 1
        self.preprocessing = ImageInput(index(image_size), channels, grey, resize, background)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Scale images to float32 ``(B, C, S, S)`` in [-1, 1].

        Args:
            ids: Samples, int64 ``(B,)``.
        """
        return self.preprocessing.inputs_of_tensor(self.images[ids])

    @override
    def contents(self) -> Hashes:
        """Hash the stored pixels of every image."""
        return hash_rows(self.images)

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """Return the images as pictures.

        Args:
            ids: Samples.
        """
        return [*as_pictures(self(int64_ids(ids)))]
