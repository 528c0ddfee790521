"""Convolutional network for small images, and the layers and pooling that other encoders share with it.

Shapes: B = images, C = their channels, H x W = their resolution, F = channels of a stage, h x w = its resolution,
D = embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder, check_positive
from metric_module.encoders.check_inputs import check_floats
from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class ConvNet(Encoder):
    """Stages of convolutions, features pooled from every stage, and a linear embedding head.

    The first convolution, the stem, divides the resolution by its stride, every later stage by 2. The last stage is
    pooled by its generalised mean, the earlier ones by their mean: colours and strokes, which early stages detect,
    distinguish small images as well as shapes do.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels F of each stage.
        depths: Number of convolutions in each stage after the one that reduces the resolution.
        normalize: Whether embeddings have length one.
        in_channels: Channels C of the images.
        stem_stride: Stride of the stem, whose kernel is twice as wide, but at least 3. 4 suits images of 64 pixels, 2
            those of 32.

    Raises:
        UserError: If a width, a depth or the stride is below 1, or the numbers of widths and depths differ. On a call,
            if the inputs are not images with C channels, or are too small for the stem.
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
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        self.stem_stride = stem_stride
        self.stages = nn.ModuleList()
        for before, width, depth, stride in plan_stages(in_channels, widths, depths, stem_stride):
            first = conv_layer(before, width, 3 if len(self.stages) else _stem_kernel(stride), stride)
            self.stages.append(nn.Sequential(first, *(conv_layer(width, width) for _ in range(depth))))
        self.stages.to(memory_format=torch.channels_last)
        self.pool = GeneralizedMean()
        self.head = EmbeddingHead(sum(widths), embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, C, H, W)``."""
        self._check(inputs)
        features = inputs.contiguous(memory_format=torch.channels_last)
        pooled: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)  # (B, F, h, w)
            pool = self.pool if stage is self.stages[-1] else mean_pool
            pooled.append(pool(features))  # (B, F)
        return self.head(torch.cat(pooled, dim=1))

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

    Shapes: B = samples, F = channels, ... = the dimensions to pool: ``h, w`` of an image, ``T`` of a series.
    """

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    @override
    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features ``(B, F)`` of maps ``(B, F, ...)``, in float32 or float64; see :func:`mean_pool` for the mask."""
        return mean_pool(at_least_float32(features).clamp(min=1e-4).pow(self.power), mask).pow(1 / self.power)


def mean_pool(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average maps over all dimensions after the second, in float32 or float64.

    Args:
        features: The maps, ``(B, F, ...)``.
        mask: True for the positions to average, bool ``(B, 1, ...)``, at least one of each sample; None: all.

    Returns:
        Features ``(B, F)``.
    """
    features = at_least_float32(features)
    places = tuple(range(2, features.ndim))
    if mask is None:
        return features.mean(dim=places)
    return (features * mask).sum(dim=places) / mask.sum(dim=places)


def plan_stages(
    in_channels: int, widths: Sequence[int], depths: Sequence[int], stem_stride: int
) -> list[tuple[int, int, int, int]]:
    """List the stages of a network: the first has the stride of the stem, the others have stride 2.

    Args:
        in_channels: Channels of the input.
        widths: Channels of each stage.
        depths: Number of convolutions in each stage after its first.
        stem_stride: Stride of the first convolution.

    Returns:
        Input channels, channels, depth and stride of each stage.

    Raises:
        UserError: If there is no stage, the numbers of widths and depths differ, or an argument is below 1.

    Example:
        >>> plan_stages(3, widths=(16, 32), depths=(1, 2), stem_stride=4)
        [(3, 16, 1, 4), (16, 32, 2, 2)]
    """
    if len(widths) != len(depths) or min([*widths, *depths], default=0) < 1:
        raise UserError(
            "encoder: expected as many widths as depths, each at least 1, "
            f"got widths={list(widths)}, depths={list(depths)}"
        )
    check_positive({"stem_stride": stem_stride})
    strides = [stem_stride] + [2] * (len(widths) - 1)
    return list(zip([in_channels, *widths[:-1]], widths, depths, strides, strict=True))


def conv_layer(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Build a convolution that divides the resolution by ``stride``, then batch normalisation and ReLU.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel: Width of the kernel in pixels.
        stride: Stride in pixels.
    """
    convolution = nn.Conv2d(before, after, kernel, stride, _padding(kernel, stride), bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _stem_kernel(stride: int) -> int:
    return max(3, 2 * stride)


def _padding(kernel: int, stride: int) -> int:
    """Padding with which a convolution divides the resolution by its stride."""
    return (kernel - stride + 1) // 2
