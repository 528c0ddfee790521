"""Error messages for inputs that an encoder does not accept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metric_module import Encoder, UserError
from metric_module.encoders import MLP, ConvNet, PixelConvNet, SeriesConvNet, TimmEncoder

IMAGES = "a float tensor of shape [B, 3, H, W]"
CONV = f"ConvNet: expected {IMAGES} (encoder.in_channels=3), got "
TIMM = "TimmEncoder: expected a float tensor of shape [B, 3, H, W] (encoder.in_channels=3)"
TEXTS = "; encoder=char_conv_net and encoder=text take texts"
CHANNELS = "; channels come before height and width: inputs.permute(0, 3, 1, 2)"


@pytest.mark.parametrize(
    ("encoder", "inputs", "message"),
    [
        (ConvNet(), ["a", "b"], f"{CONV}a list of str{TEXTS}"),
        (ConvNet(), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), f"{CONV}torch.uint8 [2, 8, 8, 3]{CHANNELS}"),
        (ConvNet(), torch.zeros(2, 8, 8, 3), f"{CONV}torch.float32 [2, 8, 8, 3]{CHANNELS}"),
        (ConvNet(), torch.zeros(2, 1, 8, 8), f"{CONV}torch.float32 [2, 1, 8, 8]"),
        (ConvNet(), torch.zeros(2, 3, 8), f"{CONV}torch.float32 [2, 3, 8]"),
        (ConvNet(), {"images": 1}, f"{CONV}a dict with keys images"),
        (
            ConvNet(),
            torch.zeros(2, 3, 9, 3),
            "ConvNet: expected images of at least 4 x 4 pixels (encoder.stem_stride=4), got 9 x 3",
        ),
        (
            TimmEncoder("test_resnet"),
            ("a", "b"),
            f"{TIMM}, got a tuple of str{TEXTS}",
        ),
        (
            TimmEncoder("test_resnet"),
            torch.zeros(2, 3, 32, 32).long(),
            f"{TIMM}, got torch.int64 [2, 3, 32, 32]",
        ),
        (MLP(3), ["a"], f"MLP: expected a float tensor of shape [B, ...], got a list of str{TEXTS}"),
        (MLP(3), torch.zeros(3), "MLP: expected a float tensor of shape [B, ...], got torch.float32 [3]"),
        (
            MLP(3),
            torch.zeros(2, 3).int(),
            "MLP: expected a float tensor of shape [B, ...], got torch.int32 [2, 3]",
        ),
        (
            SeriesConvNet(),
            ["a"],
            "SeriesConvNet: expected a float tensor of shape [B, 1, T] (encoder.in_channels=1), "
            f"got a list of str{TEXTS}",
        ),
        (PixelConvNet(), ["a"], f"PixelConvNet: expected a dict of images and pixels, got a list of str{TEXTS}"),
        (
            PixelConvNet(),
            {"image": 1},
            "PixelConvNet: expected a dict of images and pixels, got a dict with keys image",
        ),
        (
            PixelConvNet(),
            {"images": torch.zeros(2, 8, 8, 3), "pixels": torch.zeros(1, 3).long()},
            f"PixelConvNet: expected {IMAGES} (encoder.in_channels=3), got torch.float32 [2, 8, 8, 3]{CHANNELS}",
        ),
    ],
)
def test_inputs_of_another_kind(encoder: Encoder, inputs: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        encoder(inputs)
    assert str(caught.value) == message


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_conv_net_takes_images_of_the_smallest_size_that_it_names(stride: int) -> None:
    encoder = ConvNet(widths=(4, 4), depths=(1, 1), stem_stride=stride).eval()
    with pytest.raises(UserError, match="expected images of at least") as caught:
        encoder(torch.zeros(1, 3, 0, 0))
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert encoder(torch.zeros(1, 3, least, least)).shape == (1, 128)
    if least > 1:
        with pytest.raises(UserError, match=f"got {least} x {least - 1}$"):
            encoder(torch.zeros(1, 3, least, least - 1))
        with pytest.raises(RuntimeError, match="ernel size"):
            encoder.stages[0](torch.zeros(1, 3, least, least - 1))
