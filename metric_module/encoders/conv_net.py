"""A small residual network for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.errors import UserError


class ConvNet(Encoder):
    """Residual convolutions, generalised mean pooling, and a linear embedding head.

    The stem and every stage but the first halve the resolution, and every stage but the first doubles the width.

    Args:
        embedding_dim: Size D of an embedding.
        width: Channels of the first stage.
        depths: Residual blocks in each stage.
        normalize: Whether embeddings have length one.
        in_channels: Channels of the images.

    Raises:
        UserError: If ``width`` or a depth is below 1.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        width: int = 64,
        depths: Sequence[int] = (1, 1, 1),
        normalize: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if width < 1 or len(depths) == 0 or min(depths) < 1:
            raise UserError(f"encoder: expected width >= 1 and depths >= 1, got width={width}, depths={list(depths)}")
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = [_conv(in_channels, width, kernel=4, stride=2)]
        channels = width
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(_conv(channels, channels * 2, kernel=3, stride=2))
                channels *= 2
            layers += [_Residual(channels) for _ in range(depth)]
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
        """Features ``(B, F)`` of maps ``(B, F, h, w)``, in float32."""
        return features.float().clamp(min=1e-4).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)


class _Residual(nn.Module):
    """Two convolutions added to their input; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, kernel=3)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        _initialize(self.second)

    @override
    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.norm(self.second(self.first(features)))
        return added.relu_()


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    convolution = nn.Conv2d(before, after, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    _initialize(convolution)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _initialize(convolution: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
