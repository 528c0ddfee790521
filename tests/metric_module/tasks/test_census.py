"""The census of a data set before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from metric_module import UserError
from metric_module.evaluation import separation
from metric_module.tasks import census, train
from metric_module.tasks.build import Parts, build
from metric_module.tasks.embedding.split import embed_split
from tests.helpers.training import Triples, loader, module, trainer

Compose = Callable[..., DictConfig]


def test_shares_are_those_of_the_embeddings(small: Compose, tmp_path: Path) -> None:
    cfg = small("task=census", "task.margins=[0.1,0.2]", "margin=0.3")
    figures = census(cfg)
    written = json.loads((tmp_path / "run/census.json").read_text())
    parts = build(cfg)
    data: Any = parts.datamodule
    ids = data.samples.splits["train"]
    with torch.no_grad():
        embeddings = parts.module.eval()(data.samples.fetch(ids))
    expected = separation(embeddings, data.samples.labels[ids], [0.1, 0.2, 0.3])
    assert [row["margin"] for row in written["margins"]] == [0.1, 0.2, 0.3]
    for name in ("easy", "semihard", "hard"):
        assert [row[name] for row in written["margins"]] == pytest.approx(getattr(expected, name).tolist(), abs=1e-3)
        assert figures[f"census/{name}"] == written["margins"][2][name]
    assert 0 < figures["census/hard"] < 1
    assert written["triplets"] == int(expected.triplets)
    assert written["samples"] == len(ids)
    page = (tmp_path / "run/census.html").read_text()
    assert "embedded by the encoder as training would start" in page
    assert f"{100 * figures['census/easy']:.2f} %" in page
    assert page.count('data-figure="') == 2
    assert written["d_ap"]["0.5"] < written["d_an"]["0.5"]


def test_of_a_checkpoint_another_split_and_some_anchors(small: Compose, tmp_path: Path) -> None:
    train(small("margin=0.3", "trainer.max_epochs=4", "optimizer.lr=0.02"))
    before = census(small("task=census", "task.split=val", "margin=0.3", folder="before"))
    path = f"ckpt_path='{tmp_path / 'run/checkpoints/best.ckpt'}'"
    after = census(small("task=census", "task.split=val", "margin=0.3", path, folder="after"))
    assert after["census/easy"] > before["census/easy"]
    few = census(small("task=census", "task.split=val", "task.anchors=5", "margin=0.3", path, folder="few"))
    assert few != after
    assert json.loads((tmp_path / "few/census.json").read_text())["triplets"] < 500


def test_without_a_checkpoint_the_last_one_is_an_error(small: Compose) -> None:
    with pytest.raises(UserError, match=r"ckpt_path=last: no checkpoint in .*/run/checkpoints"):
        census(small("task=census", "ckpt_path=last"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.margins=[-1]"], "task.margins: expected numbers >= 0, got -1.0"),
        (["task.anchors=0"], "task.anchors: expected an integer >= 1 or null, got 0"),
        (["task.split=nowhere"], "^task.split: unknown split 'nowhere': expected one of train, val, test, all"),
    ],
)
def test_mistakes_are_named(small: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        census(small("task=census", *overrides))


class Plain(LightningDataModule):
    def val_dataloader(self) -> DataLoader[Any]:
        return loader()


def test_a_data_module_of_ones_own(tmp_path: Path) -> None:
    parts = Parts(module(), Plain(), trainer(tmp_path))
    ids, labels = embed_split(parts, "val", tmp_path, lambda shards: (shards.ids.tolist(), shards.labels.tolist()))
    assert ids == list(range(128))
    assert labels == torch.cat([batch.labels for batch in Triples().batches]).tolist()
    with pytest.raises(UserError, match=r"task.split: Plain has no eval_dataloader; expected val or test, got 'train'"):
        embed_split(parts, "train", tmp_path, len)  # type: ignore[arg-type]
