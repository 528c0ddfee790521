"""Options typed with a checkpoint are those of its parts, and not of the parts that Hydra composes by default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from metric_module import UserError
from metric_module.cli.trained_parts import with_trained_parts

KEPT = {
    "datamodule": {"_target_": "datamodules.ImageFolderDataModule", "root": "pics", "read": {"crop": False}},
    "encoder": {"_target_": "metric_module.encoders.TimmEncoder", "name": "resnet18"},
    "margin": 0.2,
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    torch.save({"state_dict": {}, "config": KEPT}, tmp_path / "a.ckpt")
    return str(tmp_path / "a.ckpt")


def words(path: str, *more: str, task: str = "evaluate") -> list[str]:
    return [f"task={task}", f"ckpt_path='{path}'", *more]


@pytest.mark.parametrize("task", ["evaluate", "embed", "census"])
def test_keys_of_the_checkpoint_are_forced(path: str, task: str) -> None:
    given = ("datamodule.root=new", "datamodule.read.crop=true", "+datamodule.fold=0", "encoder.name=vit", "-m")
    expected = [
        "++datamodule.root=new",
        "++datamodule.read.crop=true",
        "++datamodule.fold=0",
        "++encoder.name=vit",
    ]
    assert with_trained_parts(words(path, *given, task=task)) == words(path, *expected, "-m", task=task)
    sweep = words(f"{path}", "datamodule.root=a,b")
    assert with_trained_parts(sweep) == words(path, "++datamodule.root=a,b")


def test_other_words_are_left_alone(path: str) -> None:
    for given in (
        words(path, "datamodule.root=new", "encoder=mlp", task="train"),
        words(path, "datamodule=image_folder", "datamodule.root=new", "margin=0.1"),
        words(path, "trainer.accelerator=cpu", "optimizer.lr=0.1"),
        words(path, "++datamodule.root=new", "~datamodule.read"),
        words("last", "datamodule.root=new"),
        ["task=evaluate", "datamodule.root=new"],
        ["task=evaluate", "ckpt_path=nowhere.ckpt", "margin=0.1", "a=b=c=", "--help"],
    ):
        assert with_trained_parts(given) == given
    some = words(path, "encoder=mlp", "encoder.hidden=[]", "datamodule.root=new")
    assert with_trained_parts(some) == [*some[:-1], "++datamodule.root=new"]


def test_the_keys_of_the_checkpoint_are_listed(path: str) -> None:
    message = (
        "unknown key 'roof' in datamodule of the checkpoint: did you mean 'root'? allowed: root, read; an argument "
    )
    message += "that its configuration does not list is added with +datamodule.roof=..."
    with pytest.raises(UserError, match=re.escape(message)):
        with_trained_parts(words(path, "datamodule.roof=new"))
    with pytest.raises(UserError, match=r"unknown key 'up' in datamodule.root of the checkpoint: allowed: none"):
        with_trained_parts(words(path, "datamodule.root.up=new"))


def test_a_checkpoint_without_a_configuration(path: str) -> None:
    torch.save({"state_dict": {}}, path)
    assert with_trained_parts(words(path, "datamodule.root=new")) == words(path, "datamodule.root=new")


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ckpt_path: no such file: .*nowhere"):
        with_trained_parts(words(str(tmp_path / "nowhere"), "datamodule.root=new"))
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"ckpt_path: .*text is not a checkpoint of plain tensors"):
        with_trained_parts(words(str(tmp_path / "text"), "datamodule.root=new"))
