"""A trained encoder reads other data as it was trained, unless the user says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from datamodules import ImageFolderDataModule
from metric_module import save_encoder
from metric_module.encoders import ConvNet
from metric_module.preprocessing import ImageInput
from tests.helpers.command_line import Command, command_in

QUICK = ("trainer.accelerator=cpu", "report=false", "logger=csv", "trainer.enable_progress_bar=false")
TRAIN = ("encoder.widths=[4]", "encoder.depths=[1]", "encoder.embedding_dim=4", "datamodule.num_workers=0")
OTHER = ("datamodule=image_folder", "datamodule.root=other", "datamodule.num_workers=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures at 8 pixels, and other pictures."""
    folder = tmp_path_factory.mktemp("home")
    pixels = np.random.default_rng(0)
    for name in ("pics", "other"):
        for number in range(30):
            path = folder / name / f"class_{number // 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        words = ("datamodule=image_folder", "datamodule.root=pics", "datamodule.image_size=8", *TRAIN, *QUICK)
        assert command_in(folder, patch)(*words, "trainer.max_epochs=1", "hydra.run.dir=run") == 0
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return command_in(home, monkeypatch)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of all inputs that the encoder gets."""
    seen: list[tuple[int, ...]] = []
    inner = ImageInput.inputs

    def inputs(self: ImageInput, squares: Any) -> torch.Tensor:
        made = inner(self, squares)
        seen.append(tuple(made.shape[1:]))
        return made

    monkeypatch.setattr(ImageInput, "inputs", inputs)
    return seen


def test_a_run_keeps_its_preprocessing(home: Path) -> None:
    text = torch.load(home / "run/checkpoints/best.ckpt", weights_only=True)["preprocessing"]
    assert text == ImageFolderDataModule(root=str(home / "pics"), image_size=8).preprocessing.to_json()  # type: ignore[union-attr]


@pytest.mark.parametrize("task", ["evaluate", "embed", "census"])
@pytest.mark.parametrize("older", [False, True])
def test_other_data_is_read_as_in_training(
    home: Path, command: Command, sizes: list[Any], task: str, older: bool
) -> None:
    """An older checkpoint keeps no preprocessing, but the options of its data module."""
    path = home / "run/checkpoints/best.ckpt"
    if older:
        content = torch.load(path, weights_only=True)
        del content["preprocessing"]
        path = home / "older.ckpt"
        torch.save(content, path)
    assert command(f"task={task}", f"ckpt_path={path}", *OTHER, *QUICK, f"hydra.run.dir={task}_{older}") == 0
    assert {*sizes} == {(3, 8, 8)}
    assert OmegaConf.load(home / f"{task}_{older}" / "config.yaml").datamodule.image_size == 8


def test_a_size_that_is_typed_is_taken_and_named(command: Command, sizes: list[Any]) -> None:
    words = ("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", *OTHER, *QUICK, "hydra.run.dir=typed")
    with pytest.warns(UserWarning, match=r"datamodule.image_size=12: the encoder was trained with 8; 12 is used"):
        assert command(*words, "datamodule.image_size=12") == 0
    assert {*sizes} == {(3, 12, 12)}


def test_weights_alone_bring_it_too(home: Path, command: Command, sizes: list[Any]) -> None:
    words = ("task=evaluate", "module.encoder_weights=run/encoder.safetensors", *OTHER, *TRAIN, *QUICK)
    assert command(*words, "hydra.run.dir=weights") == 0
    assert {*sizes} == {(3, 8, 8)}


def test_the_rule_comes_along_and_not_only_the_size(home: Path, command: Command, sizes: list[Any]) -> None:
    """A model of grey images gets grey images of a folder of colours, by the filter it was trained with."""
    grey = ImageInput(8, channels=1, grey=True, resize="area", background=0)
    save_encoder(ConvNet(embedding_dim=4, widths=(4,), depths=(1,), in_channels=1), home / "grey.safetensors", grey)
    words = ("task=evaluate", "module.encoder_weights=grey.safetensors", "encoder.in_channels=1")
    assert command(*words, *OTHER, *TRAIN, *QUICK, "hydra.run.dir=grey") == 0
    assert {*sizes} == {(1, 8, 8)}
