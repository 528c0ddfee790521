"""FreezeBackbone in a Lightning training: it unfreezes in time, also after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig

from metric_module import TripletCriterion, TripletModule, UserError
from metric_module.callbacks import FreezeBackbone
from metric_module.distances import Euclidean
from metric_module.encoders import TimmEncoder
from metric_module.miners import All
from metric_module.tasks import train

Compose = Callable[..., DictConfig]
SAME = ("trainer.check_val_every_n_epoch=1", "+callbacks.keep._target_=tests.helpers.small.KeepEachLast", "test=false")


def backbone(path: Path) -> dict[str, Any]:
    weights = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in weights.items() if name.startswith("encoder.backbone.")}


def head(path: Path) -> Any:
    return torch.load(path, weights_only=True)["state_dict"]["encoder.head.weight"]


def equal(one: dict[str, Any], other: dict[str, Any]) -> list[bool]:
    return [torch.equal(one[name], other[name]) for name in one]


def test_still_for_the_first_epochs_then_not(small: Compose, tmp_path: Path) -> None:
    """Validation calls train() and eval() on the module; the statistics of BatchNorm are among the weights."""
    train(
        small(
            "callbacks=[default,freeze_backbone]", "callbacks.freeze_backbone.epochs=2", "trainer.max_epochs=4", *SAME
        )
    )
    folder = tmp_path / "run" / "checkpoints"
    one, two, three = (folder / f"last-of-{epoch}.ckpt" for epoch in (1, 2, 3))
    assert any("running_mean" in name for name in backbone(one))
    assert all(equal(backbone(one), backbone(two))) and not torch.equal(head(one), head(two))
    assert not any(equal(backbone(two), backbone(three)))


def test_a_resume_in_the_frozen_part_stays_frozen(small: Compose, tmp_path: Path) -> None:
    frozen = ("callbacks=[default,freeze_backbone]", "callbacks.freeze_backbone.epochs=2", "trainer.max_epochs=4")
    train(small(*frozen, *SAME, "encoder.dropout=0.0"))
    first = tmp_path / "run" / "checkpoints" / "last-of-1.ckpt"
    train(small(*frozen, *SAME, "encoder.dropout=0.0", f"ckpt_path='{first}'", folder="rest"))
    folder = tmp_path / "rest" / "checkpoints"
    assert all(equal(backbone(first), backbone(folder / "last-of-2.ckpt")))
    assert not any(equal(backbone(first), backbone(folder / "last-of-3.ckpt")))
    assert all(equal(backbone(tmp_path / "run" / "checkpoints" / "last.ckpt"), backbone(folder / "last.ckpt")))


def test_without_the_callback_it_moves(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.max_epochs=3", *SAME))
    folder = tmp_path / "run" / "checkpoints"
    assert not any(equal(backbone(folder / "last-of-1.ckpt"), backbone(folder / "last-of-2.ckpt")))


def test_lets_go_of_no_more_than_it_froze() -> None:
    encoder = TimmEncoder("test_resnet", frozen=["conv1", "bn1"])
    module = TripletModule(encoder, TripletCriterion(Euclidean(), All()))
    kept = {name for name, value in encoder.named_parameters() if not value.requires_grad}
    callback, trainer = FreezeBackbone(epochs=1), Trainer(logger=False)
    callback.on_train_batch_start(trainer, module, None, 0)
    assert not [name for name, value in encoder.backbone.named_parameters() if value.requires_grad]
    callback.on_train_end(trainer, module)
    assert {name for name, value in encoder.named_parameters() if not value.requires_grad} == kept
    assert 0 < len(kept) < len(list(encoder.parameters()))
    parts = dict(encoder.backbone.named_modules())
    assert parts["layer1"].training and not parts["bn1"].training


def test_no_backbone(small: Compose) -> None:
    mlp = ("encoder=mlp", "encoder.in_features=6", "callbacks=[default,freeze_backbone]")
    with pytest.raises(UserError, match="freeze_backbone: expected an encoder with a module `backbone`, MLP has none"):
        train(small(*mlp))


def test_negative_epochs() -> None:
    with pytest.raises(UserError, match=r"freeze_backbone.epochs: expected an integer >= 0, got -1"):
        FreezeBackbone(epochs=-1)
