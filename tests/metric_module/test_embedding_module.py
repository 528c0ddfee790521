"""A module that was loaded for use embeds in evaluation mode, and trains in training mode."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import TripletCriterion, TripletModule, UserError, load_encoder, save_encoder
from metric_module.distances import Euclidean
from metric_module.miners import All
from metric_module.preprocessing import ImageInput, VectorInput
from tests.helpers.small import SIZE, Clouds, Tiny
from tests.helpers.training import module, trainer

POINTS = torch.randn(8, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an encoder with BatchNorm and dropout, and its weights beside it."""
    folder = tmp_path_factory.mktemp("trained")
    model = module(Tiny())
    fit = trainer(folder, max_epochs=1, enable_checkpointing=True, use_distributed_sampler=False)
    fit.fit(model, datamodule=Clouds())
    fit.save_checkpoint(folder / "a.ckpt")
    save_encoder(model.encoder, folder / "a.safetensors", model.preprocessing)
    return folder / "a.ckpt"


def load(path: Path) -> TripletModule:
    return TripletModule.load_from_checkpoint(path, encoder=Tiny(), criterion=TripletCriterion(Euclidean(), All()))


def test_a_sample_alone_is_as_in_its_batch(path: Path) -> None:
    model, encoder = load(path), Tiny()
    load_encoder(encoder, path.with_suffix(".safetensors"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        whole, alone = model(POINTS), model.predict_step(POINTS[:1], 0)
        assert torch.allclose(whole[:1], alone, atol=1e-6)
        assert torch.equal(encoder(POINTS), whole)
    assert not any(part.training for part in model.modules())


def test_a_module_that_was_loaded_trains_on(path: Path, tmp_path: Path) -> None:
    encoder = Tiny()
    load_encoder(encoder, path.with_suffix(".safetensors"))
    for model in (load(path), module(encoder)):
        before = model.encoder.backbone[1].running_mean.clone()  # type: ignore[index,union-attr]
        trainer(tmp_path, max_epochs=1, use_distributed_sampler=False).fit(model, datamodule=Clouds())
        assert model.training and all(part.training for part in model.encoder.modules())
        assert not torch.equal(model.encoder.backbone[1].running_mean, before)  # type: ignore[index,union-attr]


def test_what_the_user_switched_to_evaluation_stays(tmp_path: Path) -> None:
    model = module(Tiny())
    model.encoder.backbone.eval()  # type: ignore[union-attr]
    before = model.encoder.backbone[1].running_mean.clone()  # type: ignore[index,union-attr]
    with pytest.warns(UserWarning, match="eval mode"):
        trainer(tmp_path, max_epochs=1, use_distributed_sampler=False).fit(model, datamodule=Clouds())
    assert torch.equal(model.encoder.backbone[1].running_mean, before)  # type: ignore[index,union-attr]


def test_embedding_in_training_mode_is_warned_of_once() -> None:
    model = module(Tiny())
    with pytest.warns(UserWarning, match=r"Tiny embeds in training mode, .*; call module.eval\(\) first"):
        model(POINTS)
    model.predict_step(POINTS, 0)  # a second warning would be an error


def test_a_checkpoint_keeps_the_preprocessing(path: Path, tmp_path: Path) -> None:
    """Clouds fetches from a plain function, which has none; a source has."""
    assert "preprocessing" not in torch.load(path, weights_only=True) and load(path).preprocessing is None

    class Described(Clouds):
        preprocessing = VectorInput(SIZE)

    model = module(Tiny())
    fit = trainer(tmp_path, max_epochs=1, use_distributed_sampler=False)
    fit.fit(model, datamodule=Described())
    fit.save_checkpoint(tmp_path / "b.ckpt")
    content: dict[str, Any] = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert content["preprocessing"] == '{"version": 1, "kind": "vector", "size": 6}'
    assert load(tmp_path / "b.ckpt").preprocessing == VectorInput(SIZE)
    content["preprocessing"] = ImageInput(8).to_json().replace("image", "os.system")
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(
        UserError, match=r"^preprocessing: expected a kind of image, text, vector, series, towers, got 'os\."
    ):
        load(tmp_path / "b.ckpt")


def test_an_attribute_of_that_name_with_another_meaning(tmp_path: Path) -> None:
    class Own(Clouds):
        preprocessing = "crop"  # type: ignore[assignment]

    model = module(Tiny())
    trainer(tmp_path, max_epochs=1, use_distributed_sampler=False).fit(model, datamodule=Own())
    assert model.preprocessing is None
