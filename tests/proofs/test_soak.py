"""20,000 training steps with constant memory: ``pytest -m slow tests/proofs``."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.functional import unit
from metric_module.miners import BatchHard, DistanceWeighted, Random, Semihard
from metric_module.training.memory import CrossBatchMemory

pytestmark = pytest.mark.slow


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_stays_flat_over_20000_steps() -> None:
    random = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(16, 32)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    memory = CrossBatchMemory(256, 32)
    criteria = [
        TripletCriterion(Euclidean(), miner(), 0.2) for miner in (Semihard, BatchHard, DistanceWeighted, Random)
    ]
    labels = torch.arange(64) // 4
    seen: list[int] = []
    for step in range(20_000):
        inputs = torch.randn(64, 16, generator=random) + labels[:, None]
        embeddings = unit(layer(inputs))
        together = memory(embeddings, labels, torch.arange(64) + 64 * step)
        loss = criteria[step % 4](embeddings, labels, **together).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % 1000 == 999:
            gc.collect()
            seen.append(resident())
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert max(seen[5:]) - min(seen[5:]) < 8 * 2**20, seen
