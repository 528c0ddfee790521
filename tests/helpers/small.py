"""Data and an encoder small enough to train in a moment."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from typing_extensions import override

from datamodules import PKDataModule, Samples
from metric_module import Encoder
from metric_module.callbacks import LastCheckpoint

SIZE = 6
CLASSES = 18
PER_CLASS = 4


class Clouds(PKDataModule):
    """Eighteen clouds of four points each, twelve to train on: four batches of 4 x 3 in an epoch."""

    def __init__(
        self, seed: int = 0, noise: float = 0.8, poison: int | None = None, samples_per_class: int = 3
    ) -> None:
        super().__init__(classes_per_batch=4, samples_per_class=samples_per_class, seed=seed)
        self.noise = noise
        self.poison = poison

    @override
    def load(self) -> Samples:
        generator = torch.Generator().manual_seed(5)
        labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)  # (N,)
        centers = torch.randn(CLASSES, SIZE, generator=generator)  # (C, F)
        points = centers[labels] + self.noise * torch.randn(len(labels), SIZE, generator=generator)  # (N, F)
        if self.poison is not None:
            points[self.poison] = float("nan")
        ends = (0, 12, 15, 18)
        splits = {
            name: ((labels >= start) & (labels < end)).nonzero()[:, 0]
            for name, start, end in zip(("train", "val", "test"), ends[:-1], ends[1:], strict=True)
        }
        names = [f"cloud {number}" for number in range(CLASSES)]
        return Samples(fetch=points.__getitem__, labels=labels, splits=splits, class_names=names, groups=None)


def evaluated(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of a training that an evaluation has too: it keeps the threshold, and finds none."""
    own = ("val/best_threshold", "val/best_step")
    assert figures["val/best_threshold"] > 0 and figures["val/best_step"] >= 0
    return {name: value for name, value in figures.items() if name.startswith(("val/", "test/")) and name not in own}


class KeepEachLast(Callback):
    """Lets the last checkpoint be written after every epoch, and copies it aside."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, LastCheckpoint):
                saver.every_n_steps = None

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = Path(str(trainer.default_root_dir)) / "checkpoints" / "last.ckpt"
        if last.exists():
            shutil.copy(last, last.with_name(f"last-of-{trainer.current_epoch}.ckpt"))


class FailOnRank(Callback):
    """Writes down the size of the world on each rank, and fails on one rank after the second step."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        size = dist.get_world_size() if dist.is_initialized() else 1
        Path(str(trainer.default_root_dir), f"rank-{trainer.global_rank}-of-{size}").touch()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 2:
            raise RuntimeError(f"injected on rank {self.rank}")


class KillRank(Callback):
    """Kills one rank after a step, as the system would, and with ``parent`` what started it; writes down when.

    Another rank writes its process id to ``others``.
    """

    def __init__(self, rank: int, step: int, parent: bool) -> None:
        self.rank, self.step, self.parent = rank, step, parent

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        folder = Path(str(trainer.default_root_dir))
        if trainer.global_step == 0 and trainer.global_rank != self.rank:
            (folder / "others").write_text(str(os.getpid()))
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            (folder / "killed").write_text(str(time.time()))
            if self.parent:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


class Tiny(Encoder):
    """A backbone with BatchNorm and dropout, and a head."""

    def __init__(self, embedding_dim: int = 4, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.backbone = nn.Sequential(nn.Linear(SIZE, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, embedding_dim)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = nn.functional.normalize(self.head(self.backbone(inputs)), dim=1)
        return embeddings
