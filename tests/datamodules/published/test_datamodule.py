"""Tests of the data module of published data sets: arguments, trust, and one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import PublishedDataModule
from datamodules.published import LFW, Omniglot
from metric_module import UserError
from metric_module.config.trust import check_target
from tests.helpers import published_trees
from tests.helpers.command_line import command_in


def module(root: Path, **settings: Any) -> PublishedDataModule:
    given: dict[str, Any] = {
        "read": Omniglot(),
        "image_size": 8,
        "official": False,
        "preflight": False,
        "num_workers": 0,
    }
    return PublishedDataModule(root=str(root), **{**given, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size: expected an integer >= 1, got 0"),
        ({"class_turns": 1.5}, "expected 0 <= class_turns <= 1, got 1.5"),
        (
            {"fractions": (0.5, 0.25, 0.25)},
            r"datamodule.fractions: test is the official one, .*, got \(0.5, 0.25, 0.25\)",
        ),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(Path("somewhere"), **settings)


def test_unknown_view_folder_or_share(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datamodule.read.view: expected 1 or 2, got 3"):
        LFW(view=3)
    with pytest.raises(UserError, match=r"datamodule.root: no such folder: .*nowhere"):
        module(tmp_path / "nowhere").setup("fit")
    published_trees.omniglot(tmp_path)
    for share, count in ((0.0, 0), (1.0, 4)):
        message = f"val_fraction={share} of 4 takes {count}: expected at least 1 in val and in train"
        with pytest.raises(UserError, match=message):
            module(tmp_path, val_fraction=share).setup("fit")


def test_classes_are_turned_while_training(tmp_path: Path) -> None:
    published_trees.omniglot(tmp_path)
    data = module(tmp_path, class_turns=1.0, augment=None, classes_per_batch=2)
    batch = next(iter(data.train_dataloader()))
    turned = data.augment_batch(batch, epoch=0)
    assert torch.equal(turned.labels // 8, batch.labels)
    assert torch.equal(module(tmp_path, augment=None).augment_batch(batch, epoch=0).labels, batch.labels)


def test_the_same_photograph_in_training_and_test_is_accepted(tmp_path: Path) -> None:
    """Some published data sets contain such duplicates, and published figures include them."""
    published_trees.omniglot(tmp_path / "set")
    letters = tmp_path / "set"
    first = next((letters / "images_background/Alphabet_A/character01").iterdir())
    (letters / "images_evaluation/Alphabet_Y/character01/copy.png").write_bytes(first.read_bytes())
    module(letters, preflight=True, cache_dir=str(tmp_path / "cache")).prepare_data()
    first.write_bytes(b"")
    with pytest.raises(UserError, match="data: 1 files that cannot be read: "):
        module(letters, preflight=True, cache_dir=str(tmp_path / "cache")).prepare_data()


@pytest.mark.parametrize("name", ["CUB", "Market"])
def test_a_yaml_may_name_a_reader(name: str) -> None:
    check_target("datamodule.read._target_", f"datamodules.published.{name}")


@pytest.mark.parametrize("name", ["published.listing", "published.cub.Path", "published.codes", "published.lfw.LFW"])
def test_and_nothing_else_in_there(name: str) -> None:
    with pytest.raises(UserError, match=f"'datamodules.{name}' comes from a file"):
        check_target("datamodule.read._target_", f"datamodules.{name}")


@pytest.mark.filterwarnings("ignore:val. figures are left out. best_threshold")  # val has a single class
def test_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published_trees.market(tmp_path / "market")
    command = command_in(tmp_path, monkeypatch)
    words = ["datamodule=market", f"datamodule.root={tmp_path}/market", "encoder=mlp", "encoder.in_features=192"]
    words += ["encoder.hidden=[]", "datamodule.image_size=8", "datamodule.classes_per_batch=2", "logger=csv"]
    words += ["datamodule.num_workers=0", "trainer.max_steps=2", "trainer.accelerator=cpu", "report=false"]
    assert command(*words) == 2
    assert "expected 12,936 training images, found 30" in capsys.readouterr().err
    assert command(*words, "+datamodule.official=false") == 0
    assert "cross_group_map" in capsys.readouterr().out
