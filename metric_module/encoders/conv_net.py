"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class ConvNet(Encoder):
    """Convolutions, generalised mean pooling, and a linear embedding head.

    The stem and every stage but the first halve the resolution.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels of each stage.
        depths: Convolutions in each stage, beside the one that halves the resolution.
        normalize: Whether embeddings have length one.
        in_channels: Channels of the images.

    Raises:
        UserError: If a width or a depth is below 1, or there are not as many of both.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        widths: Sequence[int] = (40, 80, 160),
        depths: Sequence[int] = (1, 1, 1),
        normalize: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or min([*widths, *depths], default=0) < 1:
            raise UserError(
                "encoder: expected as many widths as depths, each at least 1, "
                f"got widths={list(widths)}, depths={list(depths)}"
            )
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = []
        channels = in_channels
        for width, depth in zip(widths, depths, strict=True):
            layers.append(_conv(channels, width, kernel=3 if layers else 4, stride=2))
            layers += [_conv(width, width, kernel=3) for _ in range(depth)]
            channels = width
        self.body = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.pool = GeneralizedMean()
        self.head = EmbeddingHead(channels, embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, C, H, W)``."""
        features: Tensor = self.body(inputs.contiguous(memory_format=torch.channels_last))  # (B, F, h, w)
        embeddings: Tensor = self.head(self.pool(features))
        return embeddings


class GeneralizedMean(nn.Module):
    """Pooling by ``mean(x^p)^(1/p)`` with a learned ``p`` (Radenovic et al. 2018, equation 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, F)`` of maps ``(B, F, h, w)``, in float32 or better."""
        return at_least_float32(features).clamp(min=1e-4).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    convolution = nn.Conv2d(before, after, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
