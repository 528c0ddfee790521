"""Constant memory over a long training, and use with a compiled encoder."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.miners import BatchHard, DistanceWeighted, Semihard


def resident_megabytes() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("miner", [Semihard, BatchHard, DistanceWeighted])
def test_memory_is_flat_over_500_steps(miner: type) -> None:
    """The fast version of tests/proofs/test_soak.py."""
    generator = torch.Generator().manual_seed(0)
    encoder = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.01)
    criterion = TripletCriterion(Euclidean(), miner(), 0.2)

    def steps(count: int) -> None:
        for _ in range(count):
            labels = torch.randint(0, 16, (64,), generator=generator)
            inputs = torch.randn(64, 16, generator=generator)
            loss = criterion(nn.functional.normalize(encoder(inputs), dim=1), labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    steps(200)
    gc.collect()
    tensors, before = sum(type(item) is torch.Tensor for item in gc.get_objects()), resident_megabytes()
    steps(500)
    gc.collect()
    after = sum(type(item) is torch.Tensor for item in gc.get_objects())
    assert after <= tensors + 2
    assert resident_megabytes() < before + 8
    assert criterion.step == 700


def test_beside_a_compiled_encoder() -> None:
    # "aot_eager" traces forward and backward as the default backend does, and needs no C++ compiler.
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    compiled = torch.compile(plain, backend="aot_eager")
    inputs, labels = torch.randn(12, 6, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 4
    criterion = TripletCriterion(Euclidean(), Semihard(), 0.3)
    gradients = []
    for encoder in (plain, compiled):
        plain.zero_grad()
        output = criterion(encoder(inputs), labels)
        output.loss.backward()
        assert output.census.active > 0
        gradients.append([parameter.grad.clone() for parameter in plain.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == 4
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
