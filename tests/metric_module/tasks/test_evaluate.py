"""The task evaluate: another data set, a whole one, and encoders that were pretrained elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metric_module.evaluation import retrieval_metrics
from tests.helpers.command_line import Command, command_in

QUICK = ("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "logger=csv", "datamodule.num_workers=0")
MLP = ("encoder=mlp", "encoder.in_features=5", "encoder.hidden=[]", "encoder.embedding_dim=3")


def figures(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def write(path: Path, seed: int, classes: int = 10, each: int = 4, **more: Any) -> dict[str, Any]:
    numbers = np.random.default_rng(seed)
    labels = np.arange(classes).repeat(each)
    inputs = (numbers.normal(size=(classes, 5))[labels] + numbers.normal(size=(len(labels), 5))).astype("float32")
    arrays = {"inputs": inputs, "labels": labels, **more}
    np.savez(path, **arrays)
    return arrays


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write(folder / "first.npz", 0)
    with pytest.MonkeyPatch.context() as patch:
        words = ("datamodule=arrays", "datamodule.path=first.npz", *MLP, *QUICK, "report=false")
        assert command_in(folder, patch)(*words, "trainer.max_epochs=1", "hydra.run.dir=run") == 0
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(home, monkeypatch)


def test_a_whole_data_set_is_measured_as_one(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """The path is an option of the checkpoint's data module; that of the default one has none."""
    arrays = write(home / "second.npz", 1, groups=np.tile([0, 0, 1, 1], 10))
    words = ("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", "datamodule.path=second.npz", *QUICK)
    assert command(*words, "task.split=all", "hydra.run.dir=all") == 0
    assert "┃    all ┃" in capsys.readouterr().out
    found = figures(home / "all")
    assert [*found] == ["all"] and found["all"]["queries"] == 40
    state = torch.load(home / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    weight, bias = state["encoder.head.linear.weight"], state["encoder.head.linear.bias"]
    embeddings = torch.nn.functional.normalize(torch.from_numpy(arrays["inputs"]) @ weight.T + bias, dim=1)
    expected = retrieval_metrics(embeddings, torch.from_numpy(arrays["labels"]))
    assert 0.1 < expected["map_at_r"] < 0.9 and "cross_group_map_at_r" in found["all"]
    for name, value in expected.items():
        assert found["all"][name] == pytest.approx(value, abs=1e-6), name
    assert "of these classes were trained on" not in (home / "all" / "report.html").read_text()
    logged = home / "all" / "metrics.csv"
    assert not logged.is_file() or "test/" not in logged.read_text(), "all is not the test"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_split_alone(home: Path, command: Command, split: str) -> None:
    words = ("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", *QUICK, "report=false")
    assert command(*words, f"task.split={split}", f"hydra.run.dir={split}") == 0
    found = figures(home / split)
    assert [*found] == [split] and found[split]["queries"] == {"train": 24, "val": 8, "test": 8}[split]
    if split != "train":
        assert found[split]["map_at_r"] == pytest.approx(figures(home / "run")[split]["map_at_r"])


def test_a_closed_set_is_named_only_for_the_data_of_the_training(
    home: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("closed.npz", "other.npz")):
        write(home / name, seed, each=8)
    split = ("+datamodule.split_by=sample", "+datamodule.fractions=[0.5,0.25,0.25]")
    words = ("datamodule=arrays", "datamodule.path=closed.npz", *split, *MLP, *QUICK)
    assert command(*words, "trainer.max_epochs=1", "hydra.run.dir=closed") == 0
    said = "closed set: 10 of the 10 classes of val and 10 of the 10 classes of test were trained on, so their figures"
    printed = capsys.readouterr().out
    assert said in " ".join(printed.split()) and "test (closed" in printed
    trained = figures(home / "closed")["test"]
    assert trained["classes"] == trained["classes_trained_on"] == 10
    assert "Closed set: 10 of the 10 classes of test" in (home / "closed" / "report.html").read_text()
    evaluated = ("task=evaluate", "ckpt_path=closed/checkpoints/best.ckpt", *QUICK)
    assert command(*evaluated, "hydra.run.dir=again") == 0
    assert figures(home / "again")["test"] == trained
    assert command(*evaluated, "datamodule.path=other.npz", "datamodule.split_seed=1", "hydra.run.dir=other") == 0
    assert "classes_trained_on" not in figures(home / "other")["test"]
    assert "It is not known whether they were trained on." in (home / "other" / "report.html").read_text()


def test_splits_that_there_are_not(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", *QUICK)
    assert command(*words, "task.split=every") == 2
    expected = "error: task.split: expected val, test, train, all or null (val and test), got 'every'\n"
    assert capsys.readouterr().err == expected


def test_pairs_have_links_in_val_and_test_alone(
    home: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{user}\t{item}\t5\t{user + item}" for user in range(30) for item in range(user % 7, 40, 5)]
    (home / "u.data").write_text("\n".join(rows) + "\n")
    words = ("task=evaluate", "experiment=movielens", "datamodule.path=u.data", "task.needs_checkpoint=false", *QUICK)
    assert command(*words, "task.split=all") == 2
    reported = capsys.readouterr().err
    assert "task.split: InteractionsDataModule has pairs, whose links are those of val and test; got 'all'" in reported


def test_a_pretrained_encoder_is_measured_before_training(
    home: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), home / "resnet.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    np.savez(home / "images.npz", inputs=pixels, labels=np.arange(10).repeat(4))
    words = ("task=evaluate", "encoder=timm", "encoder.name=test_resnet", "encoder.embedding_dim=4", *QUICK)
    data = ("datamodule=arrays", "datamodule.path=images.npz", "report=false")
    assert command(*words, *data) == 2
    assert capsys.readouterr().err.startswith("error: ckpt_path: expected a checkpoint, got none; give ckpt_path=<run>")
    assert command(*words, *data, "encoder.weights=resnet.pt", "hydra.run.dir=pretrained") == 0
    assert figures(home / "pretrained")["test"]["queries"] == 8
