"""Embeddings of a whole data set in one file."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer
from omegaconf import DictConfig
from pyarrow import parquet
from torch import Tensor
from torch.utils.data import DataLoader

from metric_module import Batch, Encoder, UserError
from metric_module.encoders import MLP
from metric_module.tasks import embed, train
from metric_module.tasks.build import Parts, build
from metric_module.tasks.embedding.shards import ShareWriter
from metric_module.tasks.embedding.task import embed_to_file
from tests.helpers.processes import on_trainers
from tests.helpers.small import CLASSES, PER_CLASS, SIZE, Clouds
from tests.helpers.training import Triples, loader, module, trainer

Compose = Callable[..., DictConfig]


DOCS = Path(__file__).parents[4] / "docs/embedding.md"


def example(file: Path) -> str:
    """The example of the docs, for a file."""
    return DOCS.read_text().split("```python")[1].split("```")[0].replace("sys.argv[1]", repr(str(file)))


def expected(cfg: DictConfig) -> Tensor:
    """Embeddings of all samples, by the module as it is built."""
    parts = build(cfg)
    data: Any = parts.datamodule
    with torch.no_grad():
        embeddings: Tensor = parts.module.eval()(data.samples.fetch(torch.arange(CLASSES * PER_CLASS)))
    return embeddings


def test_npz_of_every_split(small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = small("task=embed")
    told = embed(cfg)
    with np.load(tmp_path / "run/embeddings.npz", allow_pickle=False) as file:
        assert sorted(file) == ["class_names", "embeddings", "ids", "labels", "splits"]
        assert file["ids"].tolist() == list(range(72)) and file["ids"].dtype == np.int64
        assert file["labels"].tolist() == [id // PER_CLASS for id in range(72)] and file["labels"].dtype == np.int64
        assert file["embeddings"].dtype == np.float32
        np.testing.assert_allclose(file["embeddings"], expected(cfg).numpy(), atol=1e-6)
        assert np.ptp(file["embeddings"]) > 0.5
        assert file["class_names"][file["labels"][9]] == "cloud 2"
        assert file["splits"].tolist() == ["train"] * 48 + ["val"] * 12 + ["test"] * 12
    assert told == {"embed/samples": 72.0, "embed/width": 4.0}
    assert f"written to {tmp_path / 'run/embeddings.npz'}" in capsys.readouterr().out
    exec(example(tmp_path / "run/embeddings.npz"), {})  # what the docs show
    nearest = torch.cdist(expected(cfg)[:1], expected(cfg))[0].argsort()[1].item()
    assert capsys.readouterr().out.startswith(f"cloud {int(nearest) // PER_CLASS}  ")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "embeddings.npz"}


def test_parquet_of_one_split_of_a_checkpoint(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.max_epochs=1", "report=false"))
    path = f"ckpt_path='{tmp_path / 'run/checkpoints/last.ckpt'}'"
    embed(small("task=embed", "task.format=parquet", "task.split=val", path, folder="p"))
    embed(small("task=embed", path, folder="n"))
    table = parquet.read_table(tmp_path / "p/embeddings.parquet")
    assert table.column_names == ["ids", "labels", "embeddings", "class_names"]
    assert str(table.schema.field("embeddings").type) == "fixed_size_list<element: float>[4]"
    assert table["ids"].to_pylist() == list(range(48, 60))
    assert table["class_names"].to_pylist()[::4] == ["cloud 12", "cloud 13", "cloud 14"]
    with np.load(tmp_path / "n/embeddings.npz") as file:
        rows = file["embeddings"][48:60]
    np.testing.assert_allclose(np.stack(table["embeddings"].to_numpy()), rows, atol=1e-6)
    weights = f"module.encoder_weights='{tmp_path / 'run/encoder.safetensors'}'"
    embed(small("task=embed", weights, folder="w"))
    with np.load(tmp_path / "w/embeddings.npz") as file:
        np.testing.assert_array_equal(file["embeddings"][48:60], rows)
    fresh = expected(small())[48:60].numpy()
    assert np.abs(rows - fresh).max() > 0.01


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task.format=csv"], "task.format: expected npz or parquet, got 'csv'"),
        (["task.split=nowhere"], "^task.split: unknown split 'nowhere': expected one of train, val, test, all"),
        (["ckpt_path=last"], "ckpt_path=last: no checkpoint in .*/run/checkpoints"),
        (["datamodule.poison=50"], r"Tiny: NaN or infinity in 1 embeddings, sample ids \[50\]; look at these inputs"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(small: Compose, tmp_path: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        embed(small("task=embed", *overrides))
    left = [path.name for path in (tmp_path / "run").glob("*") if path.name != "config.yaml"]
    assert left == []


def test_a_full_disk_leaves_nothing(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShareWriter, "append", full)
    with pytest.raises(UserError, match=r"embed: cannot write .*embeddings.npz \(No space left on device\)"):
        embed(small("task=embed"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


class Plain(LightningDataModule):
    """What Lightning asks for, and no more; ids in no order, one of them twice."""

    def test_dataloader(self) -> DataLoader[Any]:
        order = torch.tensor([5, 0, 3, 1, 5, 2, 4])
        return loader([Batch(torch.ones(1, 5) * id, 1000 * id[None], id[None]) for id in order])


class Own(Plain):
    def predict_dataloader(self) -> DataLoader[Any]:
        return loader([(batch.inputs, batch.labels) for batch in Triples().batches])

    def class_names_of(self, ids: list[int]) -> list[str]:
        return [f"made {id % 32 // 4}" for id in ids]


def test_a_data_module_of_ones_own(tmp_path: Path) -> None:
    parts = Parts(module(), Plain(), trainer(tmp_path))
    assert embed_to_file(parts, "test", tmp_path / "e.npz") == (6, 3)
    with np.load(tmp_path / "e.npz") as file:
        assert sorted(file) == ["embeddings", "ids", "labels"]
        assert file["ids"].tolist() == list(range(6))
        assert file["labels"].tolist() == [0, 1000, 2000, 3000, 4000, 5000]
        rows = parts.module.eval()(torch.arange(6.0)[:, None].expand(6, 5)).detach().numpy()
        np.testing.assert_allclose(file["embeddings"], rows, atol=1e-6)
    with pytest.raises(UserError, match="Plain has no eval_dataloader; expected val or test, got 'all'"):
        embed_to_file(parts, "all", tmp_path / "e.npz")
    parts = Parts(module(), Own(), trainer(tmp_path))
    assert embed_to_file(parts, "all", tmp_path / "all.parquet") == (128, 3)
    assert parquet.read_table(tmp_path / "all.parquet")["class_names"].to_pylist()[8:13] == ["made 2"] * 4 + ["made 3"]
    with pytest.raises(UserError, match="expected val, test or all, got 'train'"):
        embed_to_file(parts, "train", tmp_path / "e.npz")


class Double(Encoder):
    embedding_dim = 5

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, inputs])


def test_one_embedding_for_each_label(tmp_path: Path) -> None:
    parts = Parts(module(Double()), Plain(), trainer(tmp_path))
    with pytest.raises(UserError, match="Double: expected one embedding per label, got 2 for 1 labels"):
        embed_to_file(parts, "test", tmp_path / "e.npz")


class Rowwise(Encoder):
    """An encoder whose rows do not depend, to the last bit, on the batch that they are in."""

    embedding_dim = 3

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs[:, :, None] * torch.linspace(-1, 1, 3 * SIZE).view(1, SIZE, 3)).sum(dim=1)


class WithoutIds(Plain):
    def test_dataloader(self) -> DataLoader[Any]:
        return loader([(batch.inputs, batch.labels) for batch in Triples().batches])


def on_some(folder: Path, ranks: int) -> list[str]:
    """Write a file on one rank of some, and return what went wrong with two more."""
    settings: dict[str, Any] = {"devices": ranks, "strategy": "ddp"} if ranks > 1 else {}
    made: Trainer = trainer(folder, use_distributed_sampler=False, **settings)
    good, bad = Clouds(), Clouds(poison=61)
    good.eval_batch_size = 7
    embed_to_file(Parts(module(Rowwise()), good, made), "all", folder / "e.npz")
    told = []
    for encoder, data in ((Rowwise(), bad), (MLP(5, 3), WithoutIds())):
        try:
            embed_to_file(Parts(module(encoder), data, made), "test", folder / "not.npz")
        except UserError as error:
            told.append(str(error))
    return told


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_write_the_same_bytes_as_one_and_stop_together(tmp_path: Path, ranks: int) -> None:
    one, some = tmp_path / "1", tmp_path / f"{ranks}"
    bad = "Rowwise: NaN or infinity in 1 embeddings, sample ids [61]; look at these inputs"
    assert on_some(one, 1) == [bad]
    without = "batch: expected (inputs, labels, index) on several processes, got a batch without index"
    assert on_trainers(on_some, ranks, tmp_path / "r", some, ranks) == [[bad, without]] * ranks
    assert (some / "e.npz").read_bytes() == (one / "e.npz").read_bytes()
    assert [path.name for path in some.rglob("*") if path.is_file()] == ["e.npz"]
