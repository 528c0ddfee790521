"""Every shipped encoder with every precision of the trainer: validation, a training step, and the numbers it gives.

Torch computes all of it on the CPU; ``16-mixed`` is left out, since its gradient scaler skips the first steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins import DoublePrecision
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from metric_module import Batch, Encoder, TripletModule
from metric_module.config import conf_folder
from metric_module.miners import DistanceWeighted
from tests.helpers.training import module, trainer

LABELS = torch.arange(12) % 4
DRAW = torch.Generator().manual_seed(0)
CENTERS = torch.randn(4, 3, 16, 16, generator=DRAW)
IMAGES = CENTERS[LABELS] + 3 * torch.randn(12, 3, 16, 16, generator=DRAW)
PIXELS = torch.stack([torch.arange(12), torch.arange(12) % 5, torch.arange(12) % 7], dim=1)
TEXTS = [f"{'abcd'[label] * 5} {number}" for number, label in enumerate(LABELS.tolist())]
SERIES = {"values": IMAGES[:, :1].flatten(2), "lengths": 100 + torch.arange(12)}

SMALL: dict[str, tuple[dict[str, Any], Any]] = {
    "char_conv_net": ({"width": 16, "depth": 1}, TEXTS),
    "custom": ({}, IMAGES),
    "conv_net": ({"widths": [8, 8], "depths": [1, 1]}, IMAGES),
    "history": ({"count": 12, "embedding_dim": 128}, torch.arange(24).view(12, 2) % 12 - 1),
    "lookup": ({"count": 12, "embedding_dim": 128}, torch.arange(12)),
    "mlp": ({"in_features": 3 * 16 * 16, "hidden": [16]}, IMAGES),
    "pixel_conv_net": ({"widths": [8, 8]}, {"images": IMAGES, "pixels": PIXELS}),
    "series_conv_net": ({"widths": [8, 8], "depths": [1, 1]}, SERIES),
    "text": ({"embedding_dim": 128}, TEXTS),
    "timm": ({"name": "test_resnet"}, torch.nn.functional.interpolate(IMAGES, 32)),
    "two_towers": (
        {"encoders": {"user": {"count": 12, "embedding_dim": 128}, "item": {"count": 12}}},
        {"user": torch.arange(12)},
    ),
}
PRECISIONS: dict[str, tuple[torch.dtype, float]] = {
    "32": (torch.float32, 1e-5),
    "bf16-mixed": (torch.float32, 0.05),
    "16-true": (torch.float16, 0.01),
    "bf16-true": (torch.bfloat16, 0.05),
    "64": (torch.float64, 1e-12),
}
"""Type of the weights, and largest difference of an embedding from that of float64."""


class Own(Encoder):
    """Scales its embeddings to unit length in the type that its layers give, as the encoder of the README does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_dim = 64
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(16 * 8, 64)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.normalize(self.head(self.layers(inputs)), dim=1)


def build(name: str, text_model: str) -> Encoder:
    torch.manual_seed(0)
    if name == "custom":
        return Own()
    settings = SMALL[name][0] | ({"model": text_model} if name == "text" else {})
    conf = OmegaConf.merge(OmegaConf.load(conf_folder() / "encoder" / f"{name}.yaml"), settings)
    encoder: Encoder = instantiate(conf, _convert_="all")
    return encoder


def loader(name: str) -> DataLoader[Any]:
    batch = Batch(SMALL[name][1], LABELS, torch.arange(12))
    return DataLoader([batch, batch], batch_size=None)  # type: ignore[arg-type]


def fitted(
    encoder: Encoder, data: Any, folder: Path, precision: str
) -> tuple[Tensor, TripletModule, Mapping[str, Any]]:
    """Embed with the first weights; return that, the module after two steps, and its logged figures."""
    own = module(encoder, DistanceWeighted(), optimizer=partial(torch.optim.AdamW, lr=1e-3, eps=1e-4))
    before = trainer(folder, precision=precision)
    before.validate(own, data, verbose=False)
    embeddings = own.metric.gathered().embeddings
    after = trainer(folder, precision=precision, max_epochs=1)
    after.fit(own, data, data)
    return embeddings, own, after.callback_metrics


def test_every_shipped_encoder_is_listed() -> None:
    shipped = {path.stem for path in (conf_folder() / "encoder").glob("*.yaml")}
    assert set(SMALL) == shipped


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SMALL)
def test_trains_and_validates(name: str, precision: str, tmp_path: Path, tiny_text: str) -> None:
    kind, tolerance = PRECISIONS[precision]
    encoder = build(name, tiny_text)
    exact = build(name, tiny_text).double().eval()
    with torch.no_grad():
        expected = exact(DoublePrecision().convert_input(SMALL[name][1]))
    before = {key: weight.clone() for key, weight in encoder.named_parameters()}
    embeddings, own, figures = fitted(encoder, loader(name), tmp_path, precision)
    assert (embeddings.double() - expected).abs().max() < tolerance
    assert embeddings.dtype == (torch.float64 if precision == "64" else torch.float32)
    assert {weight.dtype for weight in own.encoder.parameters()} == {kind}
    changed = [key for key, weight in own.encoder.named_parameters() if not torch.equal(weight, before[key].to(kind))]
    assert changed and all(weight.isfinite().all() for weight in own.encoder.parameters())
    assert float(figures["train/loss"]) > 0 and torch.isfinite(figures["val/loss"])
