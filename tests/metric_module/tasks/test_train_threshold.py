"""The threshold of a trained run: found on val whatever the evaluation, and kept in every file of the run."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from omegaconf import DictConfig

from datamodules import Samples
from metric_module import UserError
from metric_module.config.trust import vouch_for
from metric_module.evaluation import verification_metrics
from metric_module.storage.checkpoints import WholeCheckpointIO, keep_threshold
from metric_module.storage.weights import read_usage
from metric_module.tasks import embed, evaluate, train
from tests.helpers.processes import on_trainers
from tests.helpers.relation_files import ratings
from tests.helpers.small import Clouds

Compose = Callable[..., DictConfig]
SHORT = ("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "report=false", "test=false", "optimizer.lr=0.1")


def state(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def leaves(found: Any) -> list[Any]:
    """Every value of a checkpoint in order; tensors as bytes, so that equality is of every bit."""
    if isinstance(found, dict):
        return [leaf for key, value in found.items() for leaf in (key, *leaves(value))]
    if isinstance(found, list | tuple):
        return [leaf for value in found for leaf in leaves(value)]
    return [found.numpy().tobytes() if isinstance(found, torch.Tensor) else found]


def table(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def test_it_is_in_every_file_of_a_run(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[Any] = []

    def spy(path: Path, threshold: float | None) -> None:
        before.append(state(path))
        keep_threshold(path, threshold)

    monkeypatch.setattr(sys.modules["metric_module.tasks.train"], "keep_threshold", spy)
    figures = train(small(*SHORT))
    found, run = figures["val/best_threshold"], tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text())["val"]["best_threshold"] == found > 0
    assert read_usage(run / "encoder.safetensors")[1:] == ("Euclidean", found)
    (old,), new = before, state(run / "checkpoints/best.ckpt")
    assert (old.pop("threshold"), new.pop("threshold")) == (None, found)
    assert leaves(new) == leaves(old) and list(new) == list(old)
    assert state(run / "checkpoints/last.ckpt")["threshold"] is None
    assert "val/best_threshold" in (run / "metrics.csv").read_text()
    embed(small("task=embed", "task.split=val", f"ckpt_path='{run}/checkpoints/best.ckpt'", folder="embedded"))
    rows = table(tmp_path / "embedded/embeddings.arrow")
    embeddings = torch.from_numpy(np.stack(rows["embedding"].to_numpy()))
    expected = verification_metrics(embeddings, torch.tensor(rows["label_id"].to_pylist()))
    assert expected["best_threshold"] == pytest.approx(found, rel=1e-6) and expected["balanced_accuracy"] < 1
    assert float(rows.schema.metadata[b"threshold"]) == found
    embed(small("task=embed", f"module.encoder_weights='{run}/encoder.safetensors'", folder="weights"))
    assert float(table(tmp_path / "weights/embeddings.arrow").schema.metadata[b"threshold"]) == found


def test_it_is_that_of_verification(small: Compose, tmp_path: Path) -> None:
    """Both runs keep the first epoch."""
    same = (*SHORT, "monitor=epoch", "callbacks.best.mode=min")
    figures = train(small(*same, "evaluation=verification", folder="verified"))
    found = state(tmp_path / "verified/checkpoints/best.ckpt")["threshold"]
    assert figures["val/best_threshold"] == found > 0
    assert train(small(*same, folder="plain"))["val/best_threshold"] == found
    other = ("task=evaluate", "evaluation=verification", "task.split=test")
    again = evaluate(small(*other, f"ckpt_path='{tmp_path}/plain/checkpoints/best.ckpt'", folder="again"))
    assert 0 < again["test/balanced_accuracy_at_threshold"] <= again["test/balanced_accuracy"]


def test_the_test_has_no_figure_of_it_without_verification(small: Compose) -> None:
    figures = train(small(*SHORT, "test=true"))
    assert "val/best_threshold" in figures and not [name for name in figures if "at_threshold" in name]
    assert "test/best_threshold" not in figures and "test/map_at_r" in figures


def test_an_evaluation_keeps_it(small: Compose, tmp_path: Path) -> None:
    train(small(*SHORT))
    path = tmp_path / "run/checkpoints/best.ckpt"
    content = path.read_bytes()
    assert "val/best_threshold" not in evaluate(small("task=evaluate", f"ckpt_path='{path}'", folder="again"))
    assert path.read_bytes() == content


def test_one_of_another_distance_is_dropped(small: Compose, tmp_path: Path) -> None:
    found = train(small(*SHORT))["val/best_threshold"]
    run = tmp_path / "run"
    for given in (f"ckpt_path='{run}/checkpoints/best.ckpt'", f"module.encoder_weights='{run}/encoder.safetensors'"):
        with pytest.warns(
            UserWarning, match=f"^threshold: {found:.4g} was found for Euclidean, and is not used with Cosine$"
        ):
            embed(small("task=embed", given, "distance=cosine", folder="cosine"))
        about = table(tmp_path / "cosine/embeddings.arrow").schema.metadata
        assert about[b"distance"] == b"Cosine" and b"threshold" not in about


def test_a_resumed_run_finds_it_anew_and_leaves_the_file_of_another_run_alone(small: Compose, tmp_path: Path) -> None:
    """The first epoch is the best one, so that its file stays; the threshold in it is made wrong before each run."""
    first = (*SHORT, "monitor=epoch", "callbacks.best.mode=min")
    found = train(small(*first, "trainer.max_epochs=1"))["val/best_threshold"]
    best, last = (tmp_path / "run/checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    keep_threshold(best, 9.0)
    assert train(small(*first, "ckpt_path=last"))["val/best_threshold"] == state(best)["threshold"] == found
    keep_threshold(best, 9.0)
    figures = train(small(*first, f"ckpt_path='{last}'", folder="elsewhere"))
    assert figures["val/best_threshold"] == found and state(best)["threshold"] == 9.0
    assert read_usage(tmp_path / "elsewhere/encoder.safetensors").threshold == found


@pytest.mark.filterwarnings("ignore:data. val cannot have", "ignore:val. figures are left out. RetrievalMetric")
@pytest.mark.parametrize(("step", "counts"), [(1, "6 of one and 0 of two"), (4, "0 of one and 3 of two")])
def test_val_of_one_class_or_of_single_samples_has_none(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, counts: str
) -> None:
    def few(self: Clouds) -> Samples:
        samples = load(self)
        return samples._replace(splits={**samples.splits, "val": samples.splits["val"][::step][:4]})

    load = Clouds.load
    monkeypatch.setattr(Clouds, "load", few)
    with pytest.warns(UserWarning, match=f"^val: figures are left out: best_threshold: .*, got {counts}$"):
        figures = train(small(*SHORT, "monitor=val/loss"))
    assert "val/loss" in figures and "val/best_threshold" not in figures
    assert state(tmp_path / "run/checkpoints/best.ckpt")["threshold"] is None
    assert read_usage(tmp_path / "run/encoder.safetensors")[1:] == ("Euclidean", None)


def test_without_a_validation_there_is_none(small: Compose, tmp_path: Path) -> None:
    assert train(small("trainer.limit_val_batches=0", "trainer.max_epochs=1", "report=false")).keys() >= {"test/loss"}
    assert read_usage(tmp_path / "run/encoder.safetensors")[1:] == ("Euclidean", None)


def test_without_a_best_checkpoint_it_is_that_of_the_last_weights(small: Compose, tmp_path: Path) -> None:
    figures = train(small(*SHORT, "callbacks=last_checkpoint"))
    assert read_usage(tmp_path / "run/encoder.safetensors").threshold == figures["val/best_threshold"] > 0
    assert state(tmp_path / "run/checkpoints/last.ckpt")["threshold"] is None


def test_a_dry_run_finds_none(small: Compose) -> None:
    assert "val/best_threshold" not in train(small("trainer.fast_dev_run=true"))


def test_a_checkpoint_that_cannot_be_written_is_told(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if checkpoint.get("threshold") is None:
            return original(self, checkpoint, path, storage_options)
        raise UserError(f"checkpoint: cannot write {path} ({os.strerror(errno.ENOSPC)})")

    original = WholeCheckpointIO.save_checkpoint
    monkeypatch.setattr(WholeCheckpointIO, "save_checkpoint", full)
    with pytest.warns(UserWarning, match=r"checkpoint: cannot write .*best.ckpt \(No space left on device\)$"):
        figures = train(small(*SHORT))
    assert read_usage(tmp_path / "run/encoder.safetensors").threshold == figures["val/best_threshold"]
    assert state(tmp_path / "run/checkpoints/best.ckpt")["threshold"] is None


def test_relations_have_none(small: Compose, tmp_path: Path) -> None:
    data = ("datamodule=movielens", f"datamodule.path='{ratings(tmp_path / 'u').parent}'", "encoder=two_towers")
    sizes = ("datamodule.queries_per_batch=10", "encoder.encoders.user.count=30", "encoder.encoders.item.count=40")
    figures = train(small(*SHORT, *data, *sizes, "evaluation=pair_retrieval"))
    assert "val/ndcg_at_10" in figures and "val/best_threshold" not in figures
    assert state(tmp_path / "run/checkpoints/best.ckpt")["threshold"] is None
    assert read_usage(tmp_path / "run/encoder.safetensors").threshold is None


def on_ranks(cfg: DictConfig) -> dict[str, float]:
    vouch_for("tests.helpers")
    return train(cfg)


@pytest.mark.integration
def test_processes_find_one(small: Compose, tmp_path: Path) -> None:
    cfg = small(*SHORT, "trainer=ddp_cpu", "trainer.devices=2")
    one, other = on_trainers(on_ranks, 2, tmp_path / "ranks", cfg)
    assert one == other
    found, run = one["val/best_threshold"], tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text())["val"]["best_threshold"] == found > 0
    assert state(run / "checkpoints/best.ckpt")["threshold"] == found
    assert read_usage(run / "encoder.safetensors")[1:] == ("Euclidean", found)
    embed(small("task=embed", "task.split=val", f"ckpt_path='{run}/checkpoints/best.ckpt'", folder="embedded"))
    rows = table(tmp_path / "embedded/embeddings.arrow")
    embeddings = torch.from_numpy(np.stack(rows["embedding"].to_numpy()))
    expected = verification_metrics(embeddings, torch.tensor(rows["label_id"].to_pylist()))["best_threshold"]
    assert found == pytest.approx(expected, rel=1e-6)
