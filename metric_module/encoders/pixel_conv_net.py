"""A small convolutional network that embeds pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import advice, check_floats, told
from metric_module.errors import UserError


class PixelConvNet(Encoder):
    """Down and up again in resolution with skips between (Ronneberger et al. 2015), and a linear embedding head.

    Two more channels tell each pixel where it is (Liu et al. 2018): two things that look alike are told apart by place.

    Shapes: S = images, B = pixels asked for, F = channels of a stage, h x w = its resolution.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels of each stage, the first at full resolution, each next one at half of it.
        normalize: Whether embeddings have length one.
        in_channels: Channels of the images.

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
        self.down = nn.ModuleList(_twice(old, new) for old, new in zip(before, widths, strict=True))
        self.up = nn.ModuleList(_twice(low + high, high) for high, low in pairwise(widths))
        self.to(memory_format=torch.channels_last)
        self.head = EmbeddingHead(widths[0], embedding_dim, normalize)

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings ``(B, D)`` of some pixels of some images.

        Args:
            inputs: ``images``, ``(S, C, H, W)``, and ``pixels``: image, row and column of each, int64 ``(B, 3)``.
        """
        if not isinstance(inputs, Mapping) or not {"images", "pixels"} <= set(inputs):
            got = f"keys {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else told(inputs)
            raise UserError(f"PixelConvNet: expected a dict of images and pixels, got {got}{advice(inputs)}")
        features = self.features(inputs["images"]).permute(0, 2, 3, 1)  # (S, H, W, F)
        image, row, column = inputs["pixels"].unbind(dim=1)  # (B,), (B,), (B,)
        place = (image * features.shape[1] + row) * features.shape[2] + column  # (B,)
        # The backward pass of index_select always adds in the same order; that of plain indexing need not.
        embeddings: Tensor = self.head(features.flatten(0, 2).index_select(0, place))
        return embeddings

    def features(self, images: Tensor) -> Tensor:
        """Features ``(S, F, H, W)`` of every pixel of images ``(S, C, H, W)``."""
        check_floats(self, images, ("B", self.in_channels, "H", "W"), f"encoder.in_channels={self.in_channels}")
        rows, columns = (torch.linspace(-1, 1, side).to(images) for side in images.shape[2:])  # (H,), (W,)
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


def _twice(before: int, after: int) -> nn.Sequential:
    """Two times convolution, batch normalisation, ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
