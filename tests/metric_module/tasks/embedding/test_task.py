"""The task that writes the embeddings of a whole data set to one file."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning import LightningDataModule, Trainer
from omegaconf import DictConfig
from pyarrow import parquet
from torch import Tensor
from torch.utils.data import DataLoader

from metric_module import Batch, Encoder, UserError
from metric_module.encoders import MLP
from metric_module.storage.weights import fingerprint
from metric_module.tasks import embed, train
from metric_module.tasks.build import Parts, build
from metric_module.tasks.embedding.task import embed_to_file
from tests.helpers.processes import on_trainers
from tests.helpers.small import CLASSES, PER_CLASS, SIZE, Clouds
from tests.helpers.training import Triples, loader, module, trainer

Compose = Callable[..., DictConfig]


DOCS = Path(__file__).parents[4] / "docs/embedding.md"


def example(file: Path) -> str:
    """Code of the first Python example of the docs, for a file."""
    return DOCS.read_text().split("```python")[1].split("```")[0].replace("sys.argv[1]", repr(str(file)))


def expected(cfg: DictConfig) -> Tensor:
    """Embeddings of all samples, by the module as it is built."""
    parts = build(cfg)
    data: Any = parts.datamodule
    with torch.no_grad():
        embeddings: Tensor = parts.module.eval()(data.samples.fetch(torch.arange(CLASSES * PER_CLASS)))
    return embeddings


def read(path: Path) -> pa.Table:
    """All rows of an Arrow file, not copied."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def test_arrow_of_every_split(small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = small("task=embed")
    figures = embed(cfg)
    file = tmp_path / "run/embeddings.arrow"
    before = pa.total_allocated_bytes()
    table = read(file)
    assert pa.total_allocated_bytes() == before, "the file is mapped, not read"
    assert table.column_names == ["name", "id", "label", "label_id", "split", "embedding"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<") and table["id"].type == pa.int64()
    assert table["id"].to_pylist() == list(range(72)) and table["name"].to_pylist() == [str(id) for id in range(72)]
    assert table["label_id"].to_pylist() == [id // PER_CLASS for id in range(72)]
    assert table["label"].to_pylist() == [f"cloud {id // PER_CLASS}" for id in range(72)]
    assert table["split"].to_pylist() == ["train"] * 48 + ["val"] * 12 + ["test"] * 12
    rows = np.stack(table["embedding"].to_numpy())
    assert rows.dtype == np.float32 and np.ptp(rows) > 0.5
    np.testing.assert_allclose(rows, expected(cfg).numpy(), atol=1e-6)
    model = fingerprint(build(small("task=embed")).module.encoder).encode()
    assert table.schema.metadata == {b"embedding_dim": b"4", b"distance": b"Euclidean", b"model": model}
    assert figures == {"embed/samples": 72.0, "embed/width": 4.0}
    assert f"written to {file}" in capsys.readouterr().out
    exec(example(file), {})
    nearest = torch.cdist(expected(cfg)[:1], expected(cfg))[0].argsort()[1].item()
    assert capsys.readouterr().out.startswith(f"cloud {int(nearest) // PER_CLASS}  ")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "embeddings.arrow"}


def test_parquet_and_npz_of_a_checkpoint(small: Compose, tmp_path: Path) -> None:
    only = "~callbacks.before_training"  # otherwise the encoder might be better before training
    train(small("trainer.max_epochs=1", "report=false", "evaluation=[retrieval,verification]", only))
    path = f"ckpt_path='{tmp_path / 'run/checkpoints/last.ckpt'}'"
    embed(small("task=embed", "task.format=parquet", "task.split=val", path, folder="p"))
    embed(small("task=embed", "task.format=npz", path, folder="n"))
    table = parquet.read_table(tmp_path / "p/embeddings.parquet")
    assert table.column_names == ["name", "id", "label", "label_id", "split", "embedding"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[4]"
    assert table["id"].to_pylist() == list(range(48, 60)) and table["split"].to_pylist() == ["val"] * 12
    assert table["label"].to_pylist()[::4] == ["cloud 12", "cloud 13", "cloud 14"]
    threshold = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["threshold"]
    assert float(table.schema.metadata[b"threshold"]) == threshold > 0
    with np.load(tmp_path / "n/embeddings.npz", allow_pickle=False) as file:
        assert sorted(file) == ["embedding", "id", "label", "label_id", "metadata", "name", "split"]
        assert file["id"].tolist() == list(range(72)) and file["id"].dtype == file["label_id"].dtype == np.int64
        assert file["label"][file["label_id"] == 2].tolist() == ["cloud 2"] * PER_CLASS
        assert file["split"].tolist()[::12] == ["train"] * 4 + ["val", "test"]
        model = table.schema.metadata[b"model"].decode()
        about = {"embedding_dim": "4", "distance": "Euclidean", "model": model, "threshold": repr(threshold)}
        assert json.loads(str(file["metadata"])) == about
        rows = file["embedding"][48:60]
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), rows, atol=1e-6)
    weights = f"module.encoder_weights='{tmp_path / 'run/encoder.safetensors'}'"
    embed(small("task=embed", weights, folder="w"))
    again = np.stack(read(tmp_path / "w/embeddings.arrow")["embedding"].to_numpy())
    np.testing.assert_array_equal(again[48:60], rows)
    fresh = expected(small())[48:60].numpy()
    assert np.abs(rows - fresh).max() > 0.01


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.format=csv"], "task.format: expected arrow, parquet or npz, got 'csv'"),
        (["task.split=nowhere"], "^task.split: unknown split 'nowhere': expected one of train, val, test, all"),
        (["ckpt_path=last"], "ckpt_path=last: no checkpoint in .*/run/checkpoints"),
        (["datamodule.poison=50"], r"Tiny: NaN or infinity in 1 embeddings, sample ids \[50\]; look at these inputs"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(
    small: Compose, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        embed(small("task=embed", *overrides))
    assert not list((tmp_path / "run").glob("*"))


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["shards.ShardWriter.write_on_batch_end", "formats.write_file"])
def test_a_full_disk_leaves_nothing(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(f"metric_module.tasks.embedding.{place}", full)
    with pytest.raises(UserError, match=r"embed: cannot write .*embeddings.arrow \(No space left on device\)"):
        embed(small("task=embed"))
    assert not list((tmp_path / "run").glob("*"))


class Plain(LightningDataModule):
    """Lightning's methods alone; ids in no order, one of them twice."""

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
    assert embed_to_file(parts, "test", tmp_path / "e.arrow") == (6, 3)
    table = read(tmp_path / "e.arrow")
    assert table["id"].to_pylist() == list(range(6)) and table["split"].to_pylist() == ["test"] * 6
    assert table["label_id"].to_pylist() == [0, 1000, 2000, 3000, 4000, 5000]
    assert table["label"].to_pylist() == ["0", "1000", "2000", "3000", "4000", "5000"]
    rows = parts.module.eval()(torch.arange(6.0)[:, None].expand(6, 5)).detach().numpy()
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), rows, atol=1e-6)
    with pytest.raises(UserError, match="Plain has no eval_dataloader; expected val or test, got 'all'"):
        embed_to_file(parts, "all", tmp_path / "e.npz")
    parts = Parts(module(), Own(), trainer(tmp_path))
    assert embed_to_file(parts, "all", tmp_path / "all.parquet") == (128, 3)
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table["label"].to_pylist()[8:13] == ["made 2"] * 4 + ["made 3"]
    assert table["split"].null_count == 128
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


class Unlabelled(Plain):
    def test_dataloader(self) -> DataLoader[Any]:
        return loader([torch.ones(2, 5)])


def test_a_batch_has_labels(tmp_path: Path) -> None:
    parts = Parts(module(), Unlabelled(), trainer(tmp_path))
    with pytest.raises(UserError, match=r"batch: expected \(inputs, labels\) or .*, got Tensor"):
        embed_to_file(parts, "test", tmp_path / "e.npz")
    assert not list(tmp_path.rglob("*.*"))


class Rowwise(Encoder):
    """An encoder whose rows do not depend, to the last bit, on the batch that they are in."""

    embedding_dim = 3

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs[:, :, None] * torch.linspace(-1, 1, 3 * SIZE).view(1, SIZE, 3)).sum(dim=1)


class WithoutIds(Plain):
    def test_dataloader(self) -> DataLoader[Any]:
        return loader([(batch.inputs, batch.labels) for batch in Triples().batches])


def on_some(folder: Path, ranks: int) -> list[str]:
    """Write a file on one rank of some, and return the messages of three mistakes."""
    settings: dict[str, Any] = {"devices": ranks, "strategy": "ddp"} if ranks > 1 else {}
    made: Trainer = trainer(folder, use_distributed_sampler=False, **settings)
    good, bad = Clouds(), Clouds(poison=61)
    good.eval_batch_size = 7
    assert embed_to_file(Parts(module(Rowwise()), good, made), "all", folder / "e.arrow") == (72, 3)
    messages = []
    for encoder, data, name in (
        (Rowwise(), bad, "not.arrow"),
        (Rowwise(), good, f"{'x' * 250}.arrow"),  # the shards can be written, and this file cannot
        (MLP(5, 3), WithoutIds(), "not.arrow"),
    ):
        try:
            embed_to_file(Parts(module(encoder), data, made), "test", folder / name)
        except UserError as error:
            messages.append(str(error))
    return messages


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_write_the_same_bytes_as_one_and_stop_together(tmp_path: Path, ranks: int) -> None:
    one, some, long = tmp_path / "1", tmp_path / f"{ranks}", f"{'x' * 250}.arrow"
    bad = "Rowwise: NaN or infinity in 1 embeddings, sample ids [61]; look at these inputs"
    assert on_some(one, 1) == [bad, f"embed: cannot write {one / long} (File name too long)"]
    too_long = f"embed: cannot write {some / long} (File name too long)"
    without = "batch: expected (inputs, labels, index) on several processes, got a batch without index"
    assert on_trainers(on_some, ranks, tmp_path / "r", some, ranks) == [[bad, too_long, without]] * ranks
    assert (some / "e.arrow").read_bytes() == (one / "e.arrow").read_bytes()
    assert [path.name for path in some.rglob("*") if path.is_file()] == ["e.arrow"]
