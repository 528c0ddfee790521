"""Convolutional network for time series of any length.

Shapes: B = series, C = channels of the input, T = time steps, F = channels of a layer, t = its time steps,
D = embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder, check_odd
from metric_module.encoders.check_inputs import check_floats, describe
from metric_module.encoders.conv_net import GeneralizedMean, mean_pool, plan_stages
from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class SeriesConvNet(Encoder):
    """Stages of convolutions along time, features pooled from every stage, and a linear embedding head.

    The first stage keeps the resolution unless ``stem_stride`` is above 1, every later stage halves it. The last stage
    is pooled over time by its generalised mean, the earlier ones by their mean. Layers are normalised within each
    series, so that series do not interact and ``module.encode_chunk_size`` is exact.

    Series of different lengths come padded, ``{"values": (B, C, T), "lengths": (B,)}``. The content and the length of
    the padding have no influence: the embedding is that of the series alone, ``(1, C, length)``.

    Args:
        embedding_dim: Size D of an embedding.
        widths: Channels F of each stage.
        depths: Number of convolutions in each stage after its first.
        kernel_size: Width of a convolution in time steps, odd.
        normalize: Whether embeddings have length one.
        in_channels: Channels C of the series.
        stem_stride: Stride of the first convolution, for long series.

    Raises:
        UserError: If a width, a depth or the stride is below 1, the kernel size is even, or the numbers of widths and
            depths differ. On a call, if the inputs have another form, or a length is not in 1 to T.
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
        check_odd("kernel_size", kernel_size)
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        self.stages = nn.ModuleList()
        for before, width, depth, stride in plan_stages(in_channels, widths, depths, stem_stride):
            first = _Layer(before, width, kernel_size, stride)
            self.stages.append(nn.ModuleList([first, *(_Layer(width, width, kernel_size) for _ in range(depth))]))
        self.pool = GeneralizedMean()
        self.head = EmbeddingHead(sum(widths), embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Embeddings ``(B, D)`` of series ``(B, C, T)``, or of ``values`` ``(B, C, T)`` with ``lengths`` ``(B,)``."""
        features, mask = self._unpack(inputs)  # (B, C, T), (B, 1, T)
        pooled: list[Tensor] = []
        for stage in self.stages:
            for layer in stage:  # type: ignore[attr-defined]  # a ModuleList
                features, mask = layer(features, mask)  # (B, F, t), (B, 1, t)
            pool = self.pool if stage is self.stages[-1] else mean_pool
            pooled.append(pool(features, mask))  # (B, F)
        return self.head(torch.cat(pooled, dim=1))

    def _unpack(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Check inputs, and return series with zeros in the padding and a mask that is true for the series themselves.

        The mask is None if every series has all time steps.
        """
        lengths = None
        if isinstance(inputs, Mapping):
            if set(inputs) - {"lengths"} != {"values"}:
                raise UserError(f"SeriesConvNet: expected inputs with values and lengths, got {describe(inputs)}")
            inputs, lengths = inputs["values"], inputs.get("lengths")
        check_floats(self, inputs, ("B", self.in_channels, "T"), f"encoder.in_channels={self.in_channels}")
        if lengths is None:
            return inputs, None
        series, _, steps = inputs.shape
        _check_lengths(lengths, series, steps)
        mask = torch.arange(steps, device=inputs.device) < lengths.to(inputs.device)[:, None, None]  # (B, 1, T)
        return inputs.masked_fill(~mask, 0.0), mask


class _Layer(nn.Module):
    """Convolution, normalisation within each series, ReLU; padding stays zero, as beyond the end of a series."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(before, after, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.norm = SeriesNorm(after)

    @override
    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features ``(B, F, t)`` of the next layer, and their mask ``(B, 1, t)``."""
        features = self.convolution(features)
        if mask is None:
            return self.norm(features).relu(), None
        mask = mask[:, :, :: self.stride]  # output t is centred on input stride * t
        return self.norm(features, mask).relu() * mask, mask


class SeriesNorm(nn.GroupNorm):
    """Group normalisation with one group (Wu and He 2018): over channels and time of each series, without padding.

    One group, since normalising a series of few time steps in groups of few channels would leave only zeros.

    Args:
        channels: Number of channels F.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    @override
    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise features ``(B, F, t)`` by their statistics where ``mask`` ``(B, 1, t)`` is true.

        Computed in float32 or float64, and returned in the type of the weights, as group normalisation does.
        """
        if mask is None:
            return super().forward(input)
        features = at_least_float32(input)
        count = mask.sum(dim=(1, 2), keepdim=True) * features.shape[1]  # (B, 1, 1)
        centred = features - (features * mask).sum(dim=(1, 2), keepdim=True) / count  # (B, F, t)
        variance = (centred * mask).square().sum(dim=(1, 2), keepdim=True) / count  # (B, 1, 1)
        normalised = centred * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]
        return normalised.to(self.weight.dtype)


def _check_lengths(lengths: Any, series: int, steps: int) -> None:
    if not isinstance(lengths, Tensor) or lengths.ndim != 1 or len(lengths) != series or lengths.is_floating_point():
        raise UserError(f"SeriesConvNet: expected lengths as integers of shape [{series}], got {describe(lengths)}")
    if series and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
        raise UserError(
            f"SeriesConvNet: expected lengths from 1 to {steps} time steps, got {int(lengths.min())} to "
            f"{int(lengths.max())}"
        )
