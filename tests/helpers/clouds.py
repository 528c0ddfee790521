"""A small run with everything that a resume must bring back: random numbers, schedules, averages and a memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn

from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples
from metric_module import Encoder, TripletCriterion, TripletModule
from metric_module.callbacks import EMA, ClassNeighbours, LastCheckpoint, LastValidation, MarginSchedule
from metric_module.distances import Euclidean
from metric_module.miners import Random, Scheduled, Semihard
from metric_module.storage.checkpoints import WholeCheckpointIO
from metric_module.training.memory import CrossBatchMemory
from metric_module.training.schedules import warmup_cosine

CLASSES, EACH = 12, 5


class Clouds(PKDataModule):
    """Points around a centre for each class; batches of 4 classes x 2 samples, 4 of them an epoch."""

    def load(self) -> Samples:
        random = torch.Generator().manual_seed(0)
        labels = torch.arange(CLASSES).repeat_interleave(EACH)
        centres = torch.randn(CLASSES, 6, generator=random)
        points = centres[labels] + 0.5 * torch.randn(len(labels), 6, generator=random)
        splits = {"train": labels < 6, "val": (labels >= 6) & (labels < 9), "test": labels >= 9}
        return Samples(lambda ids: points[ids], labels, {name: where.nonzero()[:, 0] for name, where in splits.items()})


class Noisy(Encoder):
    """Draws from the global generator in every forward pass."""

    embedding_dim = 4

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout))
        self.layers = nn.Sequential(self.backbone, nn.Linear(16, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = self.layers(inputs)
        return embeddings


class Record(Callback):
    """Ids of every step's batch, losses, and the epochs of validations and starts."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}
        self.losses: dict[int, float] = {}
        self.validated: list[int] = []
        self.started: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, *arguments: Any) -> None:
        self.started.append(trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.ids[trainer.global_step] = batch.index.tolist()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *arguments: Any) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])

    def on_validation_epoch_start(self, trainer: Trainer, *arguments: Any) -> None:
        self.validated.append(trainer.global_step)


def run(
    folder: Path,
    *callbacks: Callback,
    ckpt_path: str | None = None,
    epochs: int = 2,
    dropout: float = 0.3,
    ema: bool = True,
    workers: int = 0,
    every: Literal["step", "epoch"] = "step",
    settings: dict[str, Any] | None = None,
    trainer_settings: dict[str, Any] | None = None,
    neighbours: dict[str, Any] | None = None,
) -> tuple[TripletModule, Record]:
    """Train, from the start or from a checkpoint; without dropout with SGD, which does not blow up rounding."""
    torch.manual_seed(3)
    adam = partial(torch.optim.AdamW, lr=0.02)
    starts = [0, 5 if every == "step" else 1]
    miner = Scheduled({"random": Random(), "semihard": Semihard()}, starts, every)
    module = TripletModule(
        Noisy(dropout),
        TripletCriterion(Euclidean(), miner, margin=0.3, seed=1),
        optimizer=adam if dropout else partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        scheduler=partial(warmup_cosine, warmup_fraction=0.2),
        memory=CrossBatchMemory(20, 4, warmup_steps=2),
        **(settings or {}),
    )
    record = Record()
    extra: Sequence[Callback] = [EMA(0.8)] if ema else []
    saver = LastCheckpoint(str(folder / "checkpoints"), every_n_steps=1)
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=[record, *callbacks, ClassNeighbours(), MarginSchedule(end=0.6), LastValidation(), *extra, saver],
        plugins=[WholeCheckpointIO()],
        **{
            "max_epochs": epochs,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "deterministic": True,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **(trainer_settings or {}),
        },
    )
    data = Clouds(classes_per_batch=4, samples_per_class=2, seed=2, num_workers=workers, neighbours=neighbours)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module, record


def same_bits(one: TripletModule, other: TripletModule) -> bool:
    """Whether two modules agree in every bit of their state."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
