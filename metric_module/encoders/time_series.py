"""A convolutional network for time series of any length.

Shapes: B = series, C = channels of the input, T = time steps, F = channels of a layer, t = its time steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import check_floats
from metric_module.encoders.conv_net import GeneralizedMean, check_stages, mean_pool
from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class SeriesConvNet(Encoder):
    """Convolutions along time, a description pooled from every stage, and a linear embedding head.

    The first stage keeps the resolution unless ``stem_stride`` says otherwise, every later one halves it. The last
    stage is pooled over time by its generalised mean, the earlier ones by their mean. Layers are normalised within
    each series, so that series do not interact and ``module.encode_chunk_size`` is exact.

    Series of different lengths come padded, ``{"values": (B, C, T), "lengths": (B,)}``. What stands in the padding, and
    how long it is, has no influence: the embedding is that of the series alone, ``(1, C, length)``.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels of each stage.
        depths: Convolutions in each stage, beside its first.
        kernel_size: Time steps that a convolution sees, an odd number.
        normalize: Whether embeddings have length one.
        in_channels: Channels C of the series.
        stem_stride: Stride of the first convolution, for long series.

    Raises:
        UserError: If a width, a depth or the stride is below 1, the kernel size is even, or there are not as many
            widths as depths. On a call, if the inputs have another form, or a length is not in 1 to T.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        widths: Sequence[int] = (64, 128, 128),
        depths: Sequence[int] = (1, 1, 1),
        kernel_size: int = 7,
        normalize: bool = True,
        in_channels: int = 1,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        check_stages(widths, depths)
        if stem_stride < 1:
            raise UserError(f"encoder.stem_stride: expected an integer >= 1, got {stem_stride}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"encoder.kernel_size: expected an odd integer >= 1, got {kernel_size}")
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        self.stages = nn.ModuleList()
        channels, stride = in_channels, stem_stride
        for width, depth in zip(widths, depths, strict=True):
            first = _Layer(channels, width, kernel_size, stride)
            self.stages.append(nn.ModuleList([first, *(_Layer(width, width, kernel_size) for _ in range(depth))]))
            channels, stride = width, 2
        self.pool = GeneralizedMean()
        self.head = EmbeddingHead(sum(widths), embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Embeddings ``(B, D)`` of series ``(B, C, T)``, or of ``values`` ``(B, C, T)`` with ``lengths`` ``(B,)``."""
        features, lengths = self._unpacked(inputs)  # (B, C, T), (B,)
        mask = _mask(features, lengths)
        if mask is not None:
            features = features.masked_fill(~mask, 0.0)
        pooled: list[Tensor] = []
        for stage in self.stages:
            for layer in stage:  # type: ignore[attr-defined]  # a ModuleList
                features, lengths = layer(features, lengths)  # (B, F, t), (B,)
            pool = self.pool if stage is self.stages[-1] else mean_pool
            pooled.append(pool(features, _mask(features, lengths)))  # (B, F)
        embeddings: Tensor = self.head(torch.cat(pooled, dim=1))
        return embeddings

    def _unpacked(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Series and their lengths, None if each has all time steps."""
        lengths = None
        if isinstance(inputs, Mapping):
            if set(inputs) - {"lengths"} != {"values"}:
                raise UserError(f"SeriesConvNet: expected inputs with values and lengths, got {', '.join(inputs)}")
            inputs, lengths = inputs["values"], inputs.get("lengths")
        check_floats(self, inputs, ("B", self.in_channels, "T"), f"encoder.in_channels={self.in_channels}")
        if lengths is not None:
            _check_lengths(lengths, *inputs.shape[::2])
        return inputs, lengths


class _Layer(nn.Module):
    """Convolution, normalisation within each series, ReLU; padding stays zero, as beyond the end of a series."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(before, after, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.norm = SeriesNorm(after)

    @override
    def forward(self, features: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features ``(B, F, t)`` and lengths of the next layer."""
        features = self.convolution(features)
        if lengths is not None:
            lengths = (lengths - 1) // self.stride + 1  # as of the whole
        mask = _mask(features, lengths)
        features = self.norm(features, mask).relu()
        return (features if mask is None else features * mask), lengths


class SeriesNorm(nn.GroupNorm):
    """Group normalisation with one group (Wu and He 2018): over channels and time of each series, without padding.

    One group, because a series of few time steps would have nothing but zeros left in a group of few channels.

    Args:
        channels: Channels F.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    @override
    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalised features ``(B, F, t)``, by the places of ``mask`` ``(B, 1, t)`` alone."""
        if mask is None:
            return super().forward(input)
        features = at_least_float32(input)
        count = mask.sum(dim=(1, 2), keepdim=True) * features.shape[1]  # (B, 1, 1)
        centred = features - (features * mask).sum(dim=(1, 2), keepdim=True) / count  # (B, F, t)
        variance = (centred * mask).square().sum(dim=(1, 2), keepdim=True) / count  # (B, 1, 1)
        return centred * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]


def _mask(features: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Which time steps belong to the series, bool ``(B, 1, t)``; None for all."""
    if lengths is None:
        return None
    return torch.arange(features.shape[2], device=features.device) < lengths.to(features.device)[:, None, None]


def _check_lengths(lengths: Any, series: int, steps: int) -> None:
    if not isinstance(lengths, Tensor) or lengths.ndim != 1 or len(lengths) != series or lengths.is_floating_point():
        got = f"{lengths.dtype} {list(lengths.shape)}" if isinstance(lengths, Tensor) else type(lengths).__name__
        raise UserError(f"SeriesConvNet: expected lengths as integers of shape [{series}], got {got}")
    if series and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
        raise UserError(
            f"SeriesConvNet: expected lengths from 1 to {steps} time steps, got {int(lengths.min())} to "
            f"{int(lengths.max())}"
        )
