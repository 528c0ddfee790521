"""A plain Trainer, data and a module small enough to train in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset

from metric_module import Batch, Encoder, TripletCriterion, TripletModule
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.miners import All


class Triples(Dataset[Batch]):
    """Clouds around one centre per class, as batches that are already made."""

    def __init__(self, count: int = 8, noise: float = 0.3, batches: int = 4) -> None:
        generator = torch.Generator().manual_seed(0)
        centers = torch.randn(count, 5, generator=generator)
        labels = torch.arange(count).repeat_interleave(4)
        self.batches = [
            Batch(
                centers[labels] + noise * torch.randn(len(labels), 5, generator=generator),
                labels,
                torch.arange(len(labels)) + number * len(labels),
            )
            for number in range(batches)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        return self.batches[number]


def loader(data: Any = None) -> DataLoader[Any]:
    return DataLoader(Triples() if data is None else data, batch_size=None, shuffle=False)


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, **{"enable_checkpointing": False, "max_epochs": 2, **quiet, **settings})


def module(encoder: Encoder | None = None, miner: Any = None, seed: int = 0, **settings: Any) -> TripletModule:
    torch.manual_seed(seed)
    return TripletModule(
        encoder or MLP(in_features=5, embedding_dim=3, hidden=(8,)),
        TripletCriterion(Euclidean(), miner or All(), margin=0.3),
        **settings,
    )


def hidden_state(part: torch.nn.Module) -> dict[str, Any]:
    """Every attribute of a module and its children that its state dict does not hold."""
    known = set(part.state_dict())
    found: dict[str, Any] = {}
    for prefix, child in part.named_modules():
        for name, value in {**vars(child), **child._buffers}.items():
            path = f"{prefix}.{name}".lstrip(".")
            if path not in known and not name.endswith(("_buffers", "_parameters", "_modules", "_hooks")):
                found[path] = value.clone() if isinstance(value, torch.Tensor) else repr(value)
    return found


def continued(folder: Path, build: Callable[[int], Any], forget: str) -> tuple[Any, Any]:
    """Four epochs at once, and two and two with a checkpoint between: the same, bit for bit.

    Returns:
        What was trained at once, and what continued from a checkpoint in which the state ``forget`` is zero.
    """
    whole, first, rest, forgetful = build(0), build(0), build(1), build(1)
    trainer(folder, max_epochs=4).fit(whole, loader())
    stopped = trainer(folder, max_epochs=2)
    stopped.fit(first, loader())
    stopped.save_checkpoint(folder / "a.ckpt")
    trainer(folder, max_epochs=4).fit(rest, loader(), ckpt_path=folder / "a.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
    state = torch.load(folder / "a.ckpt", weights_only=True)
    state["state_dict"][forget].fill_(0)
    torch.save(state, folder / "b.ckpt")
    trainer(folder, max_epochs=4).fit(forgetful, loader(), ckpt_path=folder / "b.ckpt", weights_only=True)
    return whole, forgetful
