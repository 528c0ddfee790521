"""SeriesConvNet: padding has no influence, series do not interact, wrong inputs are rejected."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import SeriesConvNet
from metric_module.encoders.batch_norm import refuse_batch_norm
from metric_module.encoders.chunks import encode_in_chunks
from metric_module.encoders.time_series import SeriesNorm
from metric_module.evaluation import retrieval_metrics
from metric_module.miners import All

LENGTHS = torch.tensor([1, 2, 5, 16, 23, 31])


def build(**settings: Any) -> SeriesConvNet:
    torch.manual_seed(0)
    return SeriesConvNet(embedding_dim=8, widths=(6, 10), depths=(1, 2), in_channels=3, **settings)


def series(steps: int = 31) -> Tensor:
    return torch.randn(6, 3, steps, generator=torch.Generator().manual_seed(1))


def test_contract() -> None:
    encoder = build()
    embeddings = encoder(series())
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    torch.autograd.backward(embeddings[:, 0].sum())
    assert [name for name, value in encoder.named_parameters() if value.grad is None] == []
    assert ((build(normalize=False)(series()).norm(dim=1) - 1).abs() > 1e-2).any()
    refuse_batch_norm(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder({"values": series(), "lengths": LENGTHS})
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, encoder({"values": series(), "lengths": LENGTHS}), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("padding", [0.0, 1e6, math.nan, math.inf])
def test_padding_has_no_influence(stride: int, padding: float) -> None:
    """Embeddings and gradients equal those of each series alone, without padding."""
    encoder = build(stem_stride=stride).double()
    values = series().double()
    for row, length in enumerate(LENGTHS.tolist()):
        values[row, :, length:] = padding
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(2)).double()
    together = encoder({"values": values, "lengths": LENGTHS})
    torch.autograd.backward((together * weight).sum())
    found = [value.grad.clone() for value in encoder.parameters() if value.grad is not None]
    encoder.zero_grad()
    alone = torch.cat([encoder(values[row : row + 1, :, :length]) for row, length in enumerate(LENGTHS.tolist())])
    torch.autograd.backward((alone * weight).sum())
    torch.testing.assert_close(together, alone)
    assert torch.pdist(alone).min() > 1e-3, "they differ from each other"
    expected = [value.grad for value in encoder.parameters() if value.grad is not None]
    assert max(float(value.abs().max()) for value in expected) > 1e-3
    torch.testing.assert_close(found, expected)
    more = torch.cat([values, torch.full((6, 3, 9), padding).double()], dim=2)
    torch.testing.assert_close(encoder({"values": more, "lengths": LENGTHS}), alone)


def test_without_lengths_zeros_at_the_end_do_have_an_influence() -> None:
    """Without lengths, the test above would fail."""
    encoder, values = build(), series()
    padded = torch.cat([values, torch.zeros(6, 3, 9)], dim=2)
    assert (encoder(padded) - encoder(values)).abs().max() > 1e-2


def test_full_lengths_are_as_none() -> None:
    encoder, values = build(), series()
    torch.testing.assert_close(encoder({"values": values, "lengths": torch.full((6,), 31)}), encoder(values))
    torch.testing.assert_close(encoder({"values": values}), encoder(values))


def test_the_norm_is_the_formula() -> None:
    norm = SeriesNorm(3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    values = 5 + 3 * series()
    mask = torch.arange(31) < 12
    alone = torch.nn.functional.group_norm(values[:, :, :12], 1, norm.weight, norm.bias)
    torch.testing.assert_close(norm(values, mask[None, None].expand(6, 1, 31))[:, :, :12], alone)


def test_chunks_are_exact() -> None:
    encoder, inputs = build(), {"values": series(), "lengths": LENGTHS}
    whole = encoder(inputs)
    torch.autograd.backward(whole[:, 0].sum())
    expected = [value.grad.clone() for value in encoder.parameters() if value.grad is not None]
    encoder.zero_grad()
    chunked = encode_in_chunks(encoder, inputs, size=4)
    torch.testing.assert_close(chunked, whole)
    torch.autograd.backward(chunked[:, 0].sum())
    torch.testing.assert_close([value.grad for value in encoder.parameters()], expected, rtol=1e-4, atol=1e-5)


def sines(count: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Noisy sines of random phase and length, with one frequency for each of eight classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 8
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    time = torch.arange(48)
    values = (0.15 * (1 + labels[:, None]) * time + phase).sin() + 0.3 * torch.randn(count, 48, generator=generator)
    return {"values": values[:, None], "lengths": torch.randint(30, 49, (count,), generator=generator)}, labels


def test_it_learns_frequencies() -> None:
    torch.manual_seed(0)
    encoder = SeriesConvNet(embedding_dim=16, widths=(16, 16), depths=(1, 1))
    criterion, optimizer = TripletCriterion(Euclidean(), All(), 0.2), torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    held_out, labels = sines(160, seed=99)
    with torch.no_grad():
        before = retrieval_metrics(encoder(held_out), labels)["map_at_r"]
    for step in range(40):
        inputs, classes = sines(64, seed=step)
        loss = criterion(encoder(inputs), classes).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        after = retrieval_metrics(encoder(held_out), labels)["map_at_r"]
    assert before < 0.6 and after > before + 0.2, (before, after)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            torch.zeros(2, 3),
            r"expected a float tensor of shape \[B, 3, T\] \(encoder.in_channels=3\), got .*32 \[2, 3\]",
        ),
        (torch.zeros(2, 4, 9), r"expected a float tensor of shape \[B, 3, T\] .*, got torch.float32 \[2, 4, 9\]"),
        ([1.0], r"expected a float tensor of shape \[B, 3, T\] .*, got list"),
        (
            {"values": series(), "length": LENGTHS},
            r"expected inputs with values and lengths, got a dict with keys values, length",
        ),
        ({"lengths": LENGTHS}, r"expected inputs with values and lengths, got a dict with keys lengths"),
        ({"values": series(), "lengths": LENGTHS[:4]}, r"lengths as integers of shape \[6\], got torch.int64 \[4\]"),
        ({"values": series(), "lengths": LENGTHS.float()}, r"integers of shape \[6\], got torch.float32 \[6\]"),
        ({"values": series(), "lengths": [1, 2]}, r"integers of shape \[6\], got list"),
        ({"values": series(), "lengths": LENGTHS - 1}, r"lengths from 1 to 31 time steps, got 0 to 30"),
        ({"values": series(), "lengths": LENGTHS + 1}, r"lengths from 1 to 31 time steps, got 2 to 32"),
    ],
)
def test_inputs_of_another_form(inputs: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"SeriesConvNet: .*{message}"):
        build()(inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (8, 0)}, r"encoder: expected as many widths as depths, .* got widths=\[8, 0\], depths=\[1, 1, 1\]"),
        ({"stem_stride": 0}, r"encoder\.stem_stride: expected an integer >= 1, got 0"),
        ({"kernel_size": 4}, r"encoder\.kernel_size: expected an odd integer >= 1, got 4"),
        ({"kernel_size": -1}, r"encoder\.kernel_size: expected an odd integer >= 1, got -1"),
    ],
)
def test_settings_that_are_not_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SeriesConvNet(**settings)
