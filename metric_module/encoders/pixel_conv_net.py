"""Convolutional network that embeds single pixels of images.

Shapes: S = images, C = their channels, H x W = their resolution, B = requested pixels, F = channels of a stage,
h x w = its resolution, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import check_floats, describe
from metric_module.encoders.conv_net import conv_layer
from metric_module.errors import UserError


class PixelConvNet(Encoder):
    """A U-Net (Ronneberger et al. 2015) with a linear embedding head.

    Two additional input channels hold each pixel's coordinates (Liu et al. 2018), so that the embeddings of two objects
    that look alike can differ by position.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels F of each stage; the first has full resolution, each later one half that of the one before.
        normalize: Whether embeddings have length one.
        in_channels: Channels C of the images.

    Raises:
        UserError: If there is no stage, or a width is below 1; on a call, if the inputs have another form.
    """

    def __init__(
        self,
        embedding_dim: int = 16,
        widths: Sequence[int] = (16, 32, 48, 64),
        normalize: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if min(widths, default=0) < 1:
            raise UserError(f"encoder.widths: expected widths of 1 or more, got {list(widths)}")
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        before = [in_channels + 2, *widths[:-1]]
        self.down = nn.ModuleList(_two_layers(old, new) for old, new in zip(before, widths, strict=True))
        self.up = nn.ModuleList(_two_layers(low + high, high) for high, low in pairwise(widths))
        self.to(memory_format=torch.channels_last)
        self.head = EmbeddingHead(widths[0], embedding_dim, normalize)

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embed the requested pixels.

        Args:
            inputs: ``images``, float ``(S, C, H, W)``, and ``pixels``: image, row and column of each, int64 ``(B, 3)``.

        Returns:
            Embeddings ``(B, D)``.
        """
        if not isinstance(inputs, Mapping) or not {"images", "pixels"} <= set(inputs):
            raise UserError(f"PixelConvNet: expected a dict of images and pixels, got {describe(inputs)}")
        features = self.features(inputs["images"]).permute(0, 2, 3, 1)  # (S, H, W, F)
        image, row, column = inputs["pixels"].unbind(dim=1)  # (B,), (B,), (B,)
        place = (image * features.shape[1] + row) * features.shape[2] + column  # (B,)
        # The backward pass of index_select always adds in the same order; that of plain indexing need not.
        return self.head(features.flatten(0, 2).index_select(0, place))

    def features(self, images: Tensor) -> Tensor:
        """Features ``(S, F, H, W)`` of every pixel of images ``(S, C, H, W)``."""
        check_floats(self, images, ("B", self.in_channels, "H", "W"), f"encoder.in_channels={self.in_channels}")
        exact = torch.promote_types(images.dtype, torch.float32)  # not the default type, which a trainer may change
        rows, columns = (torch.linspace(-1, 1, side, dtype=exact).to(images) for side in images.shape[2:])  # (H,), (W,)
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(images), -1, -1, -1)
        features = torch.cat([images, where], dim=1).contiguous(memory_format=torch.channels_last)
        skipped: list[Tensor] = []
        for stage in self.down:
            if skipped:
                features = F.max_pool2d(features, 2, ceil_mode=True)
            features = stage(features)  # (S, F, h, w)
            skipped.append(features)
        for stage, skip in zip(reversed(self.up), reversed(skipped[:-1]), strict=True):
            larger = F.interpolate(features, size=skip.shape[2:], mode="nearest")
            features = stage(torch.cat([larger, skip], dim=1))  # (S, F, h, w)
        return features


def _two_layers(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*conv_layer(before, after), *conv_layer(after, after))
