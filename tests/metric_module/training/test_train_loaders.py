"""Loaders with a PKSampler that Lightning changed, or that were written wrongly, are refused at the start of fit."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from datamodules import PKSampler
from metric_module import UserError
from tests.helpers.processes import on_trainers
from tests.helpers.training import module, trainer

LABELS = torch.arange(64) // 4
DATA = TensorDataset(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)), LABELS)


def sampler(rank: int = 0, processes: int = 1) -> PKSampler:
    return PKSampler(LABELS, 8, 4, rank=rank, world_size=processes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sampler": sampler(), "batch_size": 30},
            r"batch_size: expected 32, the samples of a batch of PKSampler, got 30; write DataLoader\(data, sampler",
        ),
        ({"sampler": sampler()}, r"batch_size: expected 32, .* got 1; write"),
        ({"batch_sampler": BatchSampler(sampler(), 16, drop_last=True)}, r"batch_size: expected 32, .* got 16; write"),
        (
            {"batch_sampler": sampler()},
            r"batch_sampler: PKSampler yields samples, not batches; write DataLoader",
        ),
        (
            {"sampler": sampler(1, 2), "batch_size": 16},
            r"PKSampler: expected rank=0 and world_size=1, got rank=1 and world_size=2; write PKSampler",
        ),
    ],
)
def test_a_loader_that_gives_other_batches_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainer(tmp_path).fit(module(), DataLoader(DATA, **settings))


def test_right_loaders_are_taken(tmp_path: Path) -> None:
    for settings in ({"sampler": sampler(), "batch_size": 32}, {"batch_sampler": BatchSampler(sampler(), 32, False)}):
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(module(), DataLoader(DATA, **settings))
        assert fit.global_step == 2


def test_a_first_batch_without_positives_warns(tmp_path: Path) -> None:
    alone = DataLoader(TensorDataset(torch.randn(8, 5), torch.arange(8)), batch_size=4)
    with pytest.warns(UserWarning, match="no sample of the first batch has both a positive and a negative; use"):
        trainer(tmp_path, max_epochs=1).fit(module(), alone)


def fit_on_two(folder: Path) -> list[str]:
    rank = int(os.environ["RANK"])
    cases: list[tuple[bool, PKSampler]] = [(True, sampler()), (False, sampler()), (False, sampler(0, 2))]
    found = []
    for distributed, given in [*cases, (False, sampler(rank, 2))]:
        loader = DataLoader(DATA, sampler=given, batch_size=given.batch_size)
        settings: dict[str, Any] = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": distributed}
        quiet: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "max_epochs": 1,
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **settings).fit(module(), loader)
            found.append("")
        except UserError as error:
            found.append(str(error))
    return found


def test_two_processes_need_a_sampler_of_two(tmp_path: Path) -> None:
    first, second = on_trainers(fit_on_two, 2, tmp_path, tmp_path)
    assert first[0] == second[0] and first[0].startswith(
        "Trainer: expected use_distributed_sampler=False, or Lightning"
    )
    for rank, messages in enumerate((first, second)):
        assert f"expected rank={rank} and world_size=2, got rank=0 and world_size=1" in messages[1]
    assert first[2] == "train_dataloader: the loader of another process cannot be used, see its message"
    assert "expected rank=1 and world_size=2, got rank=0 and world_size=2" in second[2]
    assert first[3] == second[3] == ""
