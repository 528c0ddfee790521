"""A small training that can be sharded over two processes: blocks, a parameter without dimensions, a learned distance.

Shapes: B = samples, D = embedding size.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from metric_module import Encoder, TripletCriterion, TripletModule
from metric_module.callbacks import LastCheckpoint
from metric_module.distances import Distance, Euclidean
from metric_module.distributed import whole
from metric_module.miners import All
from metric_module.storage.checkpoints import WholeCheckpointIO
from metric_module.training import sharding
from metric_module.training.sharded_strategy import ShardedStrategy
from tests.helpers.clouds import Clouds


class Blocks(Encoder):
    """Residual blocks and a head; the last scalar is no matrix that could be divided."""

    embedding_dim = 4

    def __init__(self, scalar: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 15)  # 15 rows: one process has fewer
        self.stem.weight.data = self.stem.weight.data.T.contiguous().T  # not contiguous, as channels_last
        self.blocks = nn.ModuleList(nn.Linear(15, 15) for _ in range(3))
        self.head = nn.Linear(15, 4, bias=False)  # its gradient would be 0, of which AdamW makes steps
        self.power = nn.Parameter(torch.tensor(1.5)) if scalar else 1.5

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.stem(inputs)
        for block in self.blocks:
            features = features + torch.tanh(block(features))
        embeddings: Tensor = self.head(features.abs().clamp(min=0.1) ** self.power)  # (B, D)
        return embeddings


class Scaled(Distance):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 4))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        distances: Tensor = Euclidean()(query * self.scale, reference * self.scale)
        return distances


class Seen(NamedTuple):
    """Losses and whole gradients of the steps, and the shapes of the shards of this process."""

    losses: list[float]
    gradients: list[dict[str, Tensor]]
    shards: dict[str, tuple[int, ...]]


class Watch(Callback):
    """Notes what every step does."""

    def __init__(self) -> None:
        self.seen = Seen([], [], {})

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, *arguments: Any) -> None:
        found = {name: whole(value.grad) for name, value in module.named_parameters() if value.grad is not None}
        self.seen.gradients.append({name: value.clone() for name, value in found.items()})
        for name, value in module.named_parameters():
            if isinstance(value, DTensor):
                self.seen.shards[name] = tuple(value.to_local().shape)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *arguments: Any) -> None:
        self.seen.losses.append(float(outputs["loss"]))


def fit(folder: Path, sharded: bool, plain: bool = False, **settings: Any) -> tuple[dict[str, Tensor], Seen]:
    """Train on this process, one of those of torchrun if there are several.

    Args:
        folder: Folder of the checkpoints.
        sharded: Whether to shard; blocks of any size.
        plain: Without the scalar and the learned distance, of which every process has the whole.
        settings: ``ckpt_path``, ``optimizer``, ``module`` with arguments of the module, and arguments of the trainer.

    Returns:
        The whole weights, and what was seen.
    """
    sharding.LEAST = 1
    torch.manual_seed(int(os.environ.get("RANK", "0")) if sharded else 0)
    ckpt_path, optimizer = settings.pop("ckpt_path", None), settings.pop("optimizer", torch.optim.AdamW)
    module = TripletModule(
        Blocks(not plain),
        TripletCriterion(Euclidean() if plain else Scaled(), All(), margin=0.3),
        optimizer=partial(optimizer, lr=0.01),
        **settings.pop("module", {}),
    )
    watch = Watch()
    processes: dict[str, Any] = {"devices": int(os.environ.get("WORLD_SIZE", "1"))}
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=[watch, *settings.pop("callbacks", ()), LastCheckpoint(str(folder / "checkpoints"), 1)],
        plugins=[WholeCheckpointIO()],
        strategy=ShardedStrategy() if sharded else "auto" if processes["devices"] == 1 else "ddp",
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **processes,
            **settings,
        },
    )
    data = Clouds(classes_per_batch=4, samples_per_class=2, seed=2)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return {name: whole(value).detach().clone() for name, value in module.state_dict().items()}, watch.seen
