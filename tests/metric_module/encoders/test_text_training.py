"""Text encoders in training: exact resume, frozen backbones, and learning rates by module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from typing_extensions import override

from datamodules import PKDataModule, Samples, Texts
from datamodules.sampling.splits import split_samples
from metric_module import Encoder, TripletCriterion, TripletModule
from metric_module.callbacks import FreezeBackbone, LastCheckpoint
from metric_module.distances import Euclidean
from metric_module.encoders import CharConvNet, TextEncoder
from metric_module.miners import All
from tests.helpers.training import trainer

LETTERS = "abcdefghij"


class Words(PKDataModule):
    """Ten classes of words; the words of a class share one letter."""

    @override
    def load(self) -> Samples:
        words = [f"{other * 2}{letter * 3}{other}" for letter in LETTERS for other in "uvwxyz"]
        labels = torch.arange(len(words)) // 6
        return Samples(Texts(words), labels, split_samples(labels, list(LETTERS)))


def built(kind: str, model: str, **settings: Any) -> TripletModule:
    torch.manual_seed(0)
    encoder: Encoder
    if kind == "text":
        encoder = TextEncoder(model, embedding_dim=8)
    else:
        encoder = CharConvNet(embedding_dim=8, width=8, depth=2, buckets=100, dropout=0.2)
    return TripletModule(encoder, TripletCriterion(Euclidean(), All(), margin=0.3), **settings)


def fit(module: TripletModule, folder: Path, *callbacks: Callback, epochs: int = 4, path: Path | None = None) -> None:
    torch.manual_seed(5)
    settings: dict[str, Any] = {"enable_checkpointing": any(isinstance(part, LastCheckpoint) for part in callbacks)}
    made = trainer(folder, max_epochs=epochs, callbacks=list(callbacks), use_distributed_sampler=False, **settings)
    made.fit(module, datamodule=Words(classes_per_batch=3, samples_per_class=4), ckpt_path=path, weights_only=True)


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("kind", ["text", "characters"])
def test_a_resumed_training_is_exact(kind: str, chunk: int | None, tiny_text: str, tmp_path: Path) -> None:
    make: Callable[[], TripletModule] = lambda: built(kind, tiny_text, encode_chunk_size=chunk)  # noqa: E731
    whole, first, rest = make(), make(), make()
    start = copy.deepcopy(whole.state_dict())
    fit(whole, tmp_path)
    fit(first, tmp_path, LastCheckpoint(str(tmp_path)), epochs=2)
    fit(rest, tmp_path, LastCheckpoint(str(tmp_path)), path=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
        assert not torch.equal(first.state_dict()[name], value) or torch.equal(start[name], value), name


def test_the_backbone_is_frozen_at_first_and_slower_after(tiny_text: str, tmp_path: Path) -> None:
    module = built("text", tiny_text, lr_scale={"encoder.backbone": 0.1})
    before = copy.deepcopy(module.encoder.state_dict())
    fit(module, tmp_path, FreezeBackbone(epochs=1), epochs=1)
    moved = {name for name, value in module.encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}
    fit(module, tmp_path, epochs=1)
    last = module.encoder.state_dict()
    head, backbone = (
        (last[name] - before[name]).abs().max()
        for name in ("head.linear.weight", "backbone.encoder.layer.1.output.dense.weight")
    )
    assert 0 < backbone < head / 2
