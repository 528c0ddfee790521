"""Folders of runs with an encoder of each kind, as a training leaves them, and inputs for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from metric_module.preprocessing import ImageInput, Preprocessing, SeriesInput, TextInput, VectorInput

FIGURES = {"val": {"recall_at_1": 0.75, "map_at_r": None}, "test": {"recall_at_1": 0.5}}
THRESHOLD = 0.8125
TEXTS = ["a", "zebra crossing", "ab", "grey", "quite a long text that goes on and on and on and on and on", "b a"]


class Case(NamedTuple):
    """An encoder, how its items are read, and inputs for it."""

    node: dict[str, Any]
    preprocessing: Preprocessing | None
    inputs: Any


def node(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"metric_module.encoders.{name}", **arguments}


def numbers(*shape: int) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(3))


CONV = node("ConvNet", embedding_dim=6, widths=[4, 8], depths=[1, 1])
CHARACTERS = node("CharConvNet", embedding_dim=6, width=8, depth=2, buckets=50)

CASES = {
    "conv_net": Case(CONV, ImageInput(16), numbers(3, 16, 16)),
    "mlp": Case(node("MLP", in_features=5, embedding_dim=4, hidden=[7], normalize=False), VectorInput(5), numbers(5)),
    "series_conv_net": Case(
        node("SeriesConvNet", embedding_dim=4, widths=[4, 8], depths=[1, 1]), SeriesInput((1, 20)), numbers(1, 20)
    ),
    "timm": Case(
        node("TimmEncoder", name="resnet10t", embedding_dim=4, pretrained=False, weights="/secret/weights.pth"),
        ImageInput(32, mean=0.4, std=0.2),
        numbers(3, 32, 32),
    ),
    "char_conv_net": Case(CHARACTERS, TextInput(), TEXTS),
    "text": Case(node("TextEncoder", model="{tiny_text}", pooling="max", max_length=9), TextInput(), TEXTS),
    "text with a head": Case(node("TextEncoder", model="{tiny_text}", embedding_dim=5), TextInput(), TEXTS),
    "lookup": Case(node("LookupEncoder", count=9, embedding_dim=4), None, torch.tensor([8, 0, 3])),
    "history": Case(node("HistoryEncoder", count=9, embedding_dim=4), None, torch.tensor([[8, 0], [3, -1], [-1, -1]])),
    "custom": Case({"_target_": "tests.helpers.small.Tiny", "width": 7}, VectorInput(6), numbers(6)),
}

PIXELS = node("PixelConvNet", embedding_dim=4, widths=[4, 8])


def towers(tiny_text: str) -> dict[str, Any]:
    """Two encoders, of images and of texts."""
    return node("MultiEncoder", encoders={"image": CONV, "text": node("TextEncoder", model=tiny_text, embedding_dim=6)})


def write_run(
    folder: Path,
    encoder: dict[str, Any],
    preprocessing: Preprocessing | None,
    threshold: float | None = THRESHOLD,
    tiny_text: str = "",
) -> Path:
    """Write the checkpoint and the figures of a run, with random weights and statistics."""
    encoder = json.loads(json.dumps(encoder).replace("{tiny_text}", tiny_text))
    with torch.random.fork_rng():
        torch.manual_seed(len(str(encoder)))
        initial = {"weights": None} if "weights" in encoder else {}
        built: nn.Module = instantiate(encoder | initial, _convert_="all")
        for name, value in built.state_dict().items():
            if value.is_floating_point():
                value.add_(0.1 * (torch.rand_like(value) if "var" in name else torch.randn_like(value)))
    checkpoint = {
        "state_dict": {f"encoder.{name}": value for name, value in built.state_dict().items()},
        "config": {
            "encoder": encoder,
            "distance": {"_target_": "metric_module.distances.Euclidean"},
            "datamodule": {"_target_": "datamodules.EmojiDataModule", "root": "/secret/data"},
        },
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "threshold": threshold,
        "global_step": 1,
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    (folder / "metrics.json").write_text(json.dumps(FIGURES))
    return folder
