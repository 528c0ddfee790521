"""Several processes have the loss, census and gradient of one process on the same global batch."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metric_module import Encoder, TripletCriterion, TripletModule, distributed
from metric_module.criterion import blockwise
from metric_module.distances import Distance, Euclidean
from metric_module.distributed import gather_rows, row_counts
from metric_module.functional import unit
from metric_module.miners import (
    All,
    BatchHard,
    DistanceWeighted,
    Easy,
    EasyPositive,
    Hard,
    Random,
    Scheduled,
    Semihard,
    SemihardNearest,
)
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.processes import on_ranks

LABELS = torch.tensor([0, 0, 0, 1, 2, 1, 0, 1, 2, 2, 3, 3, 7, 0, 3, 9])
INPUTS = torch.randn(3, 16, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SHARES = {1: [16], 2: [10, 6], 3: [4, 1, 11], 4: [5, 0, 8, 3]}
"""Rows of each rank: as many as not, one without any pair of its own, one without a sample."""

MINERS: dict[str, Any] = {
    "All": All,
    "Easy": Easy,
    "Semihard": Semihard,
    "Hard": Hard,
    "BatchHard": BatchHard,
    "EasyPositive": EasyPositive,
    "SemihardNearest": SemihardNearest,
    "SemihardNearest, random": lambda: SemihardNearest(pick="random", fallback="nearest_easy"),
    "DistanceWeighted": DistanceWeighted,
    "Random": Random,
    "Scheduled": lambda: Scheduled({"first": Random(), "second": Semihard()}, starts=[0, 2]),
}


class Linear(Encoder):
    embedding_dim = 4

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 20).view(4, 5) ** 3)
            self.layer.bias.copy_(torch.linspace(1, -0.5, 4))
        self.normalize = normalize

    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = self.layer(inputs)
        return unit(embeddings) if self.normalize else embeddings


class Scaled(Distance):
    """A distance with a learned parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 4, dtype=torch.float64))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        distances: Tensor = Euclidean()(query * self.scale, reference * self.scale)
        return distances


class Job(NamedTuple):
    miner: str
    loss: str = "hinge"
    reduction: str = "mean_active"
    learnable: bool = False
    memory: bool = False
    chunk: int | None = None
    mutant: str = ""


JOBS = [
    *(Job(*options) for options in itertools.product(MINERS, ("hinge", "soft"), ("mean_active", "mean", "sum"))),
    *(Job(miner, learnable=True) for miner in ("All", "Semihard", "BatchHard")),
    *(Job(miner, memory=True) for miner in ("All", "Semihard", "BatchHard", "Random")),
    Job("Semihard", chunk=2),
]


class Step(nn.Module):
    """One step as ``TripletModule`` takes it, for DistributedDataParallel to wrap."""

    def __init__(self, module: TripletModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, labels: Tensor, ids: Tensor) -> Any:
        return self.module.mine((inputs, labels, ids), census=True)


def three_steps(job: Job) -> list[dict[str, Any]]:
    """Loss, census and gradients of three batches on this rank."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if ranks > 1 else 0
    share = slice(sum(SHARES[ranks][:rank]), sum(SHARES[ranks][: rank + 1]))
    distance = Scaled() if job.learnable else Euclidean()
    criterion = TripletCriterion(distance, MINERS[job.miner](), 0.3, job.loss, job.reduction, seed=5)
    memory = CrossBatchMemory(20, 4).double() if job.memory else None
    encoder = Linear(normalize=job.miner == "DistanceWeighted")
    module = TripletModule(encoder, criterion, memory=memory, encode_chunk_size=job.chunk)
    step: nn.Module = Step(module)
    if ranks > 1:
        step = DistributedDataParallel(step)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        if job.mutant == "/ W":
            patch.setattr(blockwise, "world_size", lambda: 1)
        elif job.mutant == "x W":
            patch.setattr(blockwise, "world_size", lambda: ranks**2)
        elif job.mutant == "detached":
            patch.setattr("metric_module.training.global_batch.gather_batch", _detached)
        elif job.mutant == "local counts":
            patch.setattr(blockwise, "over_processes", lambda totals: totals)
        for number, inputs in enumerate(INPUTS):
            ids = 100 * number + torch.arange(16)
            step.zero_grad()
            output = step(inputs[share], LABELS[share], ids[share])
            output.loss.backward()
            grads = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
            census = [None if value is None else value.double() for value in output.census]
            found.append({"loss": output.loss.item(), "census": census, "grads": grads})
    return found


def _detached(embeddings: Tensor, *others: Any) -> Any:
    """Gather without the gradients of the other ranks."""
    together = distributed.gather_batch(embeddings.detach(), *others)
    before, after = together.embeddings[: together.own.start], together.embeddings[together.own.stop :]
    return together._replace(embeddings=torch.cat([before, embeddings, after]))


def all_jobs(jobs: list[Job]) -> list[Any]:
    return [three_steps(job) for job in jobs]


@cache
def alone(job: Job) -> list[dict[str, Any]]:
    return three_steps(job)


def gradient_error(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Relative difference of the gradients of all parameters together."""
    assert one["grads"].keys() == other["grads"].keys()
    first, second = (torch.cat([value.flatten() for value in step["grads"].values()]) for step in (one, other))
    return float((first - second).norm() / first.norm().clamp(min=1e-9))


@pytest.mark.integration
@pytest.mark.parametrize("ranks", [2, *(pytest.param(more, marks=pytest.mark.integration) for more in (3, 4))])
def test_any_number_of_processes_is_one(ranks: int, tmp_path: Path) -> None:
    found = on_ranks(all_jobs, ranks, tmp_path, JOBS)
    moved = 0
    for number, job in enumerate(JOBS):
        for step, expected in enumerate(alone(job)):
            for rank in range(ranks):
                got = found[rank][number][step]
                assert gradient_error(expected, got) < 1e-10, (job, step, rank)
                assert got["loss"] == pytest.approx(expected["loss"], rel=1e-12), (job, step, rank)
                for ours, theirs in zip(got["census"], expected["census"], strict=True):
                    assert (ours is None) == (theirs is None)
                    assert ours is None or torch.allclose(ours, theirs, rtol=1e-12, atol=0, equal_nan=True), (job, step)
            moved += any(gradient.norm() > 1e-3 for gradient in expected["grads"].values())
    assert moved > 0.8 * 3 * len(JOBS), "most batches have something to learn"


def test_planted_mistakes_are_found(tmp_path: Path) -> None:
    mutants = {"/ W": 0.5, "x W": 1.0, "detached": 0.01, "local counts": 0.01}
    jobs = [Job("Semihard", mutant=mutant) for mutant in mutants]
    found = on_ranks(all_jobs, 2, tmp_path, jobs)[0]
    for (mutant, least), got in zip(mutants.items(), found, strict=True):
        errors = [gradient_error(one, two) for one, two in zip(alone(Job("Semihard")), got, strict=True)]
        assert min(errors) >= 0.99 * least, mutant


def uneven_gather() -> tuple[list[int], Tensor, Tensor, list[int]]:
    """Rows of each rank hold its number; rank r weighs row i of the whole by (r + 1) * i."""
    rank = dist.get_rank()
    rows = torch.full((2 * rank, 2), float(rank), requires_grad=True)
    counts = row_counts(rows)
    together = gather_rows(rows, counts)
    weight = (rank + 1.0) * torch.arange(len(together))
    torch.autograd.backward((together.sum(dim=1) * weight).sum())
    assert rows.grad is not None
    none = row_counts(rows[:0])
    return counts, together.detach(), rows.grad, none


def test_ranks_with_different_numbers_of_rows(tmp_path: Path) -> None:
    found = on_ranks(uneven_gather, 3, tmp_path)
    for counts, together, _, none in found:
        assert counts == [0, 2, 4]
        assert none == [0, 0, 0]
        assert together[:, 0].tolist() == [1, 1, 2, 2, 2, 2]
    total = 1 + 2 + 3
    gradients = torch.cat([gradient[:, 0] for _, _, gradient, _ in found])
    assert gradients.tolist() == [total * row for row in range(6)]


def test_one_process_needs_no_group() -> None:
    rows, labels = torch.rand(3, 2), torch.arange(3)
    together = distributed.gather_batch(rows, labels, None)
    assert together.embeddings is rows
    assert together.own == slice(0, 3)
    assert distributed.sum_over_ranks(rows) is rows
    assert gather_rows(rows, row_counts(rows)) is rows


def without_gather(job: Job) -> tuple[float, float]:
    """Loss of this rank with ``gather=False``, and of the criterion on its own samples."""
    share = slice(0, 10) if dist.get_rank() == 0 else slice(10, 16)
    criterion = TripletCriterion(Euclidean(), MINERS[job.miner](), 0.3)
    module = TripletModule(Linear(normalize=False), criterion, gather=False)
    embeddings = module.encoder(INPUTS[0][share])
    loss = module.mine((INPUTS[0][share], LABELS[share]), census=False).loss
    return loss.item(), criterion(embeddings, LABELS[share]).loss.item()


def test_gathering_can_be_switched_off(tmp_path: Path) -> None:
    (one, own_one), (two, own_two) = on_ranks(without_gather, 2, tmp_path, Job("All"))
    assert (one, two) == (own_one, own_two)
    assert one != two


def test_no_deprecated_collective_and_one_place_for_all_of_them() -> None:
    """Gathering lives in one module, and two others shard weights."""
    package = Path(distributed.__file__).parent
    users = {path.name for path in package.rglob("*.py") if "torch.distributed" in path.read_text()}
    assert users == {"distributed.py", "sharding.py", "sharded_strategy.py"}
    assert not any("distributed.nn" in path.read_text() for path in package.rglob("*.py"))
