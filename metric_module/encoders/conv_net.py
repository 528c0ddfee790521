"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import check_floats
from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class ConvNet(Encoder):
    """Convolutions, a description pooled from every stage, and a linear embedding head.

    The first convolution, the stem, takes the resolution down by its stride, every later stage by 2. The last stage is
    pooled by its generalised mean, the earlier ones by their mean: colours and strokes, which they see, tell small
    images apart as well as shapes do.

    Shapes: B = images, F = channels of a stage, h x w = its resolution.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels of each stage.
        depths: Convolutions in each stage, beside the one that halves the resolution.
        normalize: Whether embeddings have length one.
        in_channels: Channels of the images.
        stem_stride: Stride of the stem, whose kernel is twice as wide, but at least 3. 4 suits images of 64 pixels, 2
            those of 32.

    Raises:
        UserError: If a width, a depth or the stride is below 1, or there are not as many widths as depths. On a call,
            if the inputs are no images of so many channels, or are too small for the stem.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        widths: Sequence[int] = (40, 80, 160),
        depths: Sequence[int] = (1, 1, 1),
        normalize: bool = True,
        in_channels: int = 3,
        stem_stride: int = 4,
    ) -> None:
        super().__init__()
        check_stages(widths, depths)
        if stem_stride < 1:
            raise UserError(f"encoder.stem_stride: expected an integer >= 1, got {stem_stride}")
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        self.stem_stride = stem_stride
        self.stages = nn.ModuleList()
        channels, kernel, stride = in_channels, _stem_kernel(stem_stride), stem_stride
        for width, depth in zip(widths, depths, strict=True):
            first = _conv(channels, width, kernel, stride)
            self.stages.append(nn.Sequential(first, *(_conv(width, width, kernel=3) for _ in range(depth))))
            channels, kernel, stride = width, 3, 2
        self.stages.to(memory_format=torch.channels_last)
        self.pool = GeneralizedMean()
        self.head = EmbeddingHead(sum(widths), embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, C, H, W)``."""
        self._check(inputs)
        features = inputs.contiguous(memory_format=torch.channels_last)
        *earlier, last = self.stages
        pooled: list[Tensor] = []
        for stage in earlier:
            features = stage(features)  # (B, F, h, w)
            pooled.append(mean_pool(features))  # (B, F)
        pooled.append(self.pool(last(features)))  # (B, F)
        embeddings: Tensor = self.head(torch.cat(pooled, dim=1))
        return embeddings

    def _check(self, inputs: Any) -> None:
        check_floats(self, inputs, ("B", self.in_channels, "H", "W"), f"encoder.in_channels={self.in_channels}")
        kernel = _stem_kernel(self.stem_stride)
        least = kernel - 2 * _padding(kernel, self.stem_stride)
        if min(inputs.shape[2:]) < least:
            raise UserError(
                f"ConvNet: expected images of at least {least} x {least} pixels (encoder.stem_stride="
                f"{self.stem_stride}), got {inputs.shape[2]} x {inputs.shape[3]}"
            )


class GeneralizedMean(nn.Module):
    """Pooling by ``mean(x^p)^(1/p)`` with a learned ``p`` (Radenovic et al. 2018, equation 3).

    Shapes: B = samples, F = channels, ... = the places to pool: ``h, w`` of an image, ``T`` of a series.
    """

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    @override
    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features ``(B, F)`` of maps ``(B, F, ...)``, in float32 or better; as for the mask, see :func:`mean_pool`."""
        return mean_pool(at_least_float32(features).clamp(min=1e-4).pow(self.power), mask).pow(1 / self.power)


def mean_pool(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Features ``(B, F)``, the mean of maps ``(B, F, ...)``, in float32 or better.

    Args:
        features: The maps.
        mask: Which places count, bool ``(B, 1, ...)``, at least one of each sample; None is all.
    """
    features = at_least_float32(features)
    places = tuple(range(2, features.ndim))
    if mask is None:
        return features.mean(dim=places)
    return (features * mask).sum(dim=places) / mask.sum(dim=places)


def check_stages(widths: Sequence[int], depths: Sequence[int]) -> None:
    """Accept widths and depths of the stages of a network.

    Raises:
        UserError: If there are none, not as many of one as of the other, or one is below 1.
    """
    if len(widths) != len(depths) or min([*widths, *depths], default=0) < 1:
        raise UserError(
            "encoder: expected as many widths as depths, each at least 1, "
            f"got widths={list(widths)}, depths={list(depths)}"
        )


def _stem_kernel(stride: int) -> int:
    return max(3, 2 * stride)


def _padding(kernel: int, stride: int) -> int:
    """Such that the resolution is divided by the stride."""
    return (kernel - stride + 1) // 2


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    convolution = nn.Conv2d(before, after, kernel, stride, _padding(kernel, stride), bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
