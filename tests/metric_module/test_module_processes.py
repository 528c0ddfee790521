"""Lightning on several processes, as torchrun starts them: training, resume, and errors on one rank."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, Subset, TensorDataset

from metric_module import Batch, UserError
from metric_module.encoders import MLP
from metric_module.evaluation import (
    ClusteringMetric,
    EmbeddingMetric,
    FewShotMetric,
    IdentificationMetric,
    MetricGroup,
    RetrievalMetric,
    VerificationMetric,
)
from tests.helpers.clouds import CLASSES, EACH, Clouds, Noisy, run
from tests.helpers.processes import on_trainers
from tests.helpers.training import loader, module

TWO: dict[str, Any] = {"devices": 2, "strategy": "ddp"}


class StopAt(Callback):
    """A callback that sends SIGTERM to one process."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), 15)


def train(folder: Path, stop: int | None, ckpt_path: str | None, dropout: float) -> Any:
    """State, ids and losses of this rank; the exit code if it was stopped."""
    callbacks = [] if stop is None else [StopAt(stop, rank=1)]
    try:
        model, record = run(folder, *callbacks, ckpt_path=ckpt_path, dropout=dropout, trainer_settings=TWO)
    except SystemExit as end:
        return end.code
    return model.state_dict(), record.ids, record.losses, record.validated


@pytest.mark.integration
def test_stopped_on_one_rank_and_continued_on_two_and_on_one(tmp_path: Path) -> None:
    whole = on_trainers(train, 2, tmp_path / "whole", tmp_path / "a", None, None, 0.3)
    assert on_trainers(train, 2, tmp_path / "stop", tmp_path / "b", 5, None, 0.3) == [143, 143]
    path = str(tmp_path / "b/checkpoints/last.ckpt")
    rest = on_trainers(train, 2, tmp_path / "rest", tmp_path / "b", None, path, 0.3)
    for (state, ids, losses, validated), (expected, all_ids, all_losses, _) in zip(rest, whole, strict=True):
        assert list(ids) == [6, 7]
        assert ids == {step: all_ids[step] for step in ids}
        assert losses == {step: all_losses[step] for step in losses}
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert validated == [8]


@pytest.mark.integration
def test_one_process_is_two_and_goes_on_where_two_stopped(tmp_path: Path) -> None:
    alone, record = run(tmp_path / "alone", dropout=0)
    two = on_trainers(train, 2, tmp_path / "two", tmp_path / "a", None, None, 0.0)
    for step, ids in record.ids.items():
        assert [*two[0][1][step], *two[1][1][step]] == ids
    for state, _, losses, _ in two:
        assert losses == pytest.approx(record.losses, rel=1e-5)
        assert all(
            torch.allclose(state[name], value, rtol=1e-3, atol=1e-5) for name, value in alone.state_dict().items()
        )
    assert on_trainers(train, 2, tmp_path / "stop", tmp_path / "b", 2, None, 0.0) == [143, 143]
    _, rest = run(tmp_path / "b", ckpt_path=str(tmp_path / "b/checkpoints/last.ckpt"), dropout=0)
    assert rest.ids == {step: record.ids[step] for step in range(3, 8)}
    assert rest.losses == pytest.approx({step: record.losses[step] for step in range(4, 9)}, rel=1e-5)


def skewed(folder: Path) -> tuple[int, list[bool], str]:
    """50 steps in which rank 0 never has a triplet of its own, then one with a NaN on rank 1."""
    rank = int(os.environ["RANK"])
    labels = torch.arange(8) // 4 if rank else torch.arange(100, 108)
    steps = [Batch(torch.randn(8, 5), labels, torch.arange(8) + 10 * rank) for _ in range(50)]
    moved: list[bool] = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer: Trainer, model: Any, optimizer: Any) -> None:
            moved.append(bool(next(model.parameters()).isfinite().all()))

    model = module(MLP(in_features=5, embedding_dim=3, hidden=()), gather=True)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "max_epochs": 1,
        **TWO,
    }
    trainer = Trainer(default_root_dir=folder, **settings)
    trainer.fit(model, loader(steps))
    done = trainer.global_step
    spoiled = steps[0].inputs.clone()
    spoiled[3] = torch.nan if rank else spoiled[3]
    try:
        Trainer(default_root_dir=folder, **settings).fit(model, loader([steps[0]._replace(inputs=spoiled)]))
    except UserError as error:
        return done, moved, str(error)
    return done, moved, ""


@pytest.mark.integration
def test_a_rank_without_triplets_and_a_nan_on_one_rank(tmp_path: Path) -> None:
    for done, moved, error in on_trainers(skewed, 2, tmp_path, tmp_path):
        assert done == 50
        assert all(moved)
        assert error.startswith("MLP: NaN or infinity in 1 of 16 embeddings at step 0, sample ids [13]; look at")


def evaluate(folder: Path, counts: list[int]) -> list[dict[str, float]]:
    """Figures of sets of different sizes; each id is gathered exactly once."""
    found = []
    for count in counts:
        data = Clouds(classes_per_batch=4, samples_per_class=2, eval_batch_size=4)
        samples = data.samples
        kept = {**samples.splits, "val": torch.arange(CLASSES * EACH - count, CLASSES * EACH)}
        data.samples = samples._replace(splits=kept)
        torch.manual_seed(0)
        metrics: list[EmbeddingMetric] = [RetrievalMetric()]
        if count > 15:
            metrics += [VerificationMetric(), FewShotMetric(ways=3, shots=(1,), episodes=9), ClusteringMetric()]
            metrics.append(IdentificationMetric(far=(0.2,)))
        model = module(Noisy(0.0), metric=MetricGroup(metrics))
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
            **({**TWO, "devices": int(os.environ["WORLD_SIZE"])} if "RANK" in os.environ else {"devices": 1}),
        )
        (figures,) = trainer.validate(model, datamodule=data, verbose=False)
        gathered = model.metric.gathered()
        assert torch.equal(gathered.ids, kept["val"])
        found.append({name: float(value) for name, value in figures.items()})
    return found


@pytest.mark.integration
@pytest.mark.parametrize("ranks", [2, 4])
def test_figures_do_not_depend_on_the_number_of_processes(ranks: int, tmp_path: Path) -> None:
    counts = [21, 2, 3, 5, 16]
    expected = evaluate(tmp_path, counts)
    assert 0.5 < expected[0]["val/roc_auc"] < 1
    assert expected[0]["val/known_probes"] > 4 and 0 < expected[0]["val/identification_rate"] < 1
    for found in on_trainers(evaluate, ranks, tmp_path, tmp_path, counts):
        for one, other in zip(found, expected, strict=True):
            loss, true_loss = one.pop("val/loss"), other["val/loss"]
            assert loss == pytest.approx(true_loss, rel=1e-6)
            assert one == {name: value for name, value in other.items() if name != "val/loss"}


def plain_loaders(folder: Path, counts: list[int], shards: bool) -> list[dict[str, float]]:
    """Figures of loaders of ``(inputs, labels)``, whose samples the Trainer shards; with ``shards``, the data does."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    random = torch.Generator().manual_seed(0)
    sets = [
        TensorDataset(torch.randn(count, 6, generator=random), torch.randint(5, (count,), generator=random))
        for count in counts
    ]
    loaders = [DataLoader(Subset(one, range(rank, len(one), 2)) if shards else one, batch_size=7) for one in sets]
    torch.manual_seed(0)
    settings: dict[str, Any] = {"devices": 1} if processes == 1 else TWO
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        use_distributed_sampler=not shards,
        **settings,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `DistributedSampler`")
        found = trainer.validate(module(Noisy(0.0)), loaders, verbose=False)
    return [{name: float(value) for name, value in figures.items()} for figures in found]


def refused_shards(folder: Path) -> str:
    try:
        plain_loaders(folder, [40], shards=True)
    except UserError as error:
        return str(error)
    return ""


def test_batches_without_ids_give_the_figures_of_one_process(tmp_path: Path) -> None:
    expected = plain_loaders(tmp_path, [41, 30], shards=False)
    assert expected[0]["val/queries/dataloader_idx_0"] == 41 and expected[0]["val/queries/dataloader_idx_1"] == 30
    for found in on_trainers(plain_loaders, 2, tmp_path / "two", tmp_path, [41, 30], False):
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-6)  # the encoder's products differ with the rows of a batch
            exact = [name for name in other if "/loss" not in name]
            assert [one[name] for name in exact] == [other[name] for name in exact]
    for message in on_trainers(refused_shards, 2, tmp_path / "shards", tmp_path):
        assert message.startswith("ids: expected one ") and "let the loader yield (inputs, labels, index)" in message


class Double(MLP):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).double()


def of_two_types(folder: Path) -> list[str]:
    """Messages of training and of validation, with float64 embeddings on rank 1 alone."""
    kind = Double if int(os.environ["RANK"]) else MLP
    model = module(kind(in_features=5, embedding_dim=3, hidden=()))
    found = []
    for method in ("fit", "validate"):
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", default_root_dir=folder, use_distributed_sampler=False, **quiet, **TWO)
        try:
            getattr(trainer, method)(model, loader())
        except UserError as error:
            found.append(str(error))
    return found


def test_embeddings_of_two_types_stop_both_processes(tmp_path: Path) -> None:
    for found in on_trainers(of_two_types, 2, tmp_path, tmp_path):
        assert [line.partition(":")[2] for line in found] == [
            " expected embeddings of one type on all processes, got torch.float32 on rank 0, torch.float64 on rank 1"
        ] * 2
