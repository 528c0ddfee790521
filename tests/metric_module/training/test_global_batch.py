"""Steps with pairs: the triplets that the masks allow, and equal results for any number of processes."""

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

from metric_module import Batch, Encoder, PairBatch, TripletCriterion, TripletModule, UserError
from metric_module.batch import check_pair_batch
from metric_module.callbacks import CollapseGuard, MinedTriplets
from metric_module.criterion import blockwise
from metric_module.distances import Euclidean
from metric_module.distributed import gather_rows
from metric_module.miners import All, BatchHard, EasyPositive, Hard, Random, Semihard, SemihardNearest
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.check_counts import counted
from tests.helpers.processes import on_ranks
from tests.helpers.training import loader, trainer

QUERIES, REFERENCES = 10, 14
_DRAW = torch.Generator().manual_seed(3)
QUERY = torch.randn(3, QUERIES, 5, generator=_DRAW, dtype=torch.float64)
REFERENCE = torch.randn(3, REFERENCES, 6, generator=_DRAW, dtype=torch.float64)
POSITIVES = torch.rand(3, QUERIES, REFERENCES, generator=_DRAW) < 0.2
NEGATIVES = ~POSITIVES & (torch.rand(3, QUERIES, REFERENCES, generator=_DRAW) < 0.8)
SHARES = {1: ([10], [14]), 2: ([7, 3], [4, 10]), 3: ([5, 0, 5], [1, 13, 0])}
"""Numbers of queries and references of each rank, very uneven."""

MINERS: dict[str, Any] = {
    "All": All,
    "Hard": Hard,
    "Semihard": Semihard,
    "BatchHard": BatchHard,
    "EasyPositive": EasyPositive,
    "SemihardNearest, random": lambda: SemihardNearest(pick="random", fallback="nearest_easy"),
    "Random": Random,
}


class Two(Encoder):
    """A tower for inputs of 5 numbers, and one for those of 6."""

    embedding_dim = 4

    def __init__(self) -> None:
        super().__init__()
        layers = {size: nn.Linear(size, 4, dtype=torch.float64) for size in (5, 6)}
        with torch.no_grad():
            for size, layer in layers.items():
                layer.weight.copy_(torch.linspace(-1, 1, 4 * size).view(4, size) ** 3)
                layer.bias.copy_(torch.linspace(1, -0.5, 4))
        self.towers = nn.ModuleDict({str(size): layer for size, layer in layers.items()})

    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = self.towers[str(inputs.shape[1])](inputs)
        return embeddings


class Job(NamedTuple):
    miner: str
    loss: str = "hinge"
    reduction: str = "mean_active"
    masked: bool = True
    chunk: int | None = None
    mutant: str = ""
    both_ways: bool = False


JOBS = [
    *(Job(miner) for miner in MINERS),
    Job("Semihard", loss="soft", reduction="sum"),
    Job("Random", reduction="mean", masked=False),
    Job("Semihard", chunk=2),
    *(Job(miner, both_ways=True) for miner in ("Semihard", "BatchHard", "Random")),
    Job("Semihard", masked=False, both_ways=True),
]
ALL_JOBS = [
    *(Job(*options) for options in itertools.product(MINERS, ("hinge", "soft"), ("mean_active", "mean", "sum"))),
    *(Job(miner, both_ways=True) for miner in MINERS),
    *(Job(miner, masked=False) for miner in ("All", "Random")),
    Job("Semihard", chunk=2),
]


class Step(nn.Module):
    """One step as ``TripletModule`` takes it, for DistributedDataParallel to wrap."""

    def __init__(self, module: TripletModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: PairBatch) -> Any:
        return self.module.mine(batch, census=True)


def module_of(job: Job, **settings: Any) -> TripletModule:
    criterion = TripletCriterion(Euclidean(), MINERS[job.miner](), 0.3, job.loss, job.reduction, seed=5)
    return TripletModule(Two(), criterion, encode_chunk_size=job.chunk, both_ways=job.both_ways, **settings)


def batch_of(step: int, masked: bool = True, rank: int = 0, ranks: int = 1) -> PairBatch:
    """Part of a global batch for one rank."""
    parts = [slice(sum(sizes[:rank]), sum(sizes[: rank + 1])) for sizes in SHARES[ranks]]
    negatives = NEGATIVES[step, parts[0]] if masked else None
    index = torch.arange(QUERIES)[parts[0]]
    return PairBatch(QUERY[step, parts[0]], REFERENCE[step, parts[1]], POSITIVES[step, parts[0]], index, negatives)


def _detached(rows: Tensor, sizes: list[int]) -> Tensor:
    """Gather without the gradients of the other ranks."""
    together = gather_rows(rows.detach(), sizes)
    first = sum(sizes[: dist.get_rank()])
    return torch.cat([together[:first], rows, together[first + len(rows) :]])


def three_steps(job: Job) -> list[dict[str, Any]]:
    """Loss, census and gradients of three batches on this rank."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if ranks > 1 else 0
    module = module_of(job)
    step: nn.Module = DistributedDataParallel(Step(module)) if ranks > 1 else Step(module)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        if job.mutant in {"/ W", "x W"}:
            patch.setattr(blockwise, "world_size", lambda: 1 if job.mutant == "/ W" else ranks**2)
        elif job.mutant == "detached":
            patch.setattr("metric_module.training.global_batch.gather_rows", _detached)
        elif job.mutant == "place":
            patch.setattr("metric_module.training.global_batch.shard", lambda: (0, ranks))
        for number in range(3):
            step.zero_grad()
            output = step(batch_of(number, job.masked, rank, ranks))
            output.loss.backward()
            grads = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
            census = [value.double() for value in output.census]
            found.append({"loss": output.loss.item(), "census": census, "grads": grads})
    return found


def all_jobs(jobs: list[Job]) -> list[Any]:
    return [three_steps(job) for job in jobs]


def on_a_rank() -> dict[str, list[Any]]:
    """All results of a rank that the tests need, so that the processes start only once."""
    columns = [with_masks(True, "own"), with_masks(False, "own"), with_masks(False, "all")]
    return {"jobs": all_jobs(JOBS), "mutants": all_jobs(list(MUTANTS)), "columns": columns, "checks": [checks()]}


def checks() -> dict[str, int]:
    """Count the checks of labelled samples in a step of this rank."""
    batch = Batch(QUERY[0], torch.arange(QUERIES) // 2, torch.arange(QUERIES))
    with counted() as counts:
        module_of(Job("All")).mine(batch, census=False)
    return dict(counts)


def test_gathered_samples_are_checked_once(two_ranks: list[dict[str, list[Any]]]) -> None:
    assert [found["checks"] for found in two_ranks] == [[{"labels": 1, "index": 1, "scan of 10 rows": 1}]] * 2


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of each of two processes."""
    return on_ranks(on_a_rank, 2, tmp_path_factory.mktemp("ranks"))


@cache
def alone(job: Job) -> list[dict[str, Any]]:
    return three_steps(job)


def gradient_error(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Relative difference of the gradients of all parameters together."""
    first, second = (torch.cat([step["grads"][name].flatten() for name in one["grads"]]) for step in (one, other))
    return float((first - second).norm() / first.norm().clamp(min=1e-9))


def check(jobs: list[Job], found: list[list[Any]]) -> None:
    """Check that every rank has the loss, census and gradient of one process."""
    moved = 0
    for number, job in enumerate(jobs):
        for step, expected in enumerate(alone(job)):
            for rank in range(len(found)):
                got = found[rank][number][step]
                assert gradient_error(expected, got) < 1e-10, (job, step, rank)
                assert got["loss"] == pytest.approx(expected["loss"], rel=1e-12), (job, step, rank)
                for ours, theirs in zip(got["census"], expected["census"], strict=True):
                    assert torch.allclose(ours, theirs, rtol=1e-12, atol=0), (job, step)
            moved += all(gradient.norm() > 1e-3 for gradient in expected["grads"].values())
    assert moved > 0.8 * 3 * len(jobs), "most batches have something to learn, in both towers"


def test_two_processes_are_one(two_ranks: list[dict[str, list[Any]]]) -> None:
    check(JOBS, [found["jobs"] for found in two_ranks])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_processes_is_one(ranks: int, tmp_path: Path) -> None:
    check(ALL_JOBS, on_ranks(all_jobs, ranks, tmp_path, ALL_JOBS))


MUTANTS = {
    Job("Semihard", mutant="/ W"): 0.5,
    Job("Semihard", mutant="x W"): 1.0,
    Job("Semihard", mutant="detached"): 0.01,
    Job("Random", mutant="place"): 0.01,
    Job("Semihard", mutant="detached", both_ways=True): 0.01,
}


def test_planted_mistakes_are_found(two_ranks: list[dict[str, list[Any]]]) -> None:
    for (job, least), got in zip(MUTANTS.items(), two_ranks[0]["mutants"], strict=True):
        right = alone(job._replace(mutant=""))
        errors = [gradient_error(one, two) for one, two in zip(right, got, strict=True)]
        assert min(errors) >= 0.99 * least, job


def triplets(distances: Tensor, positives: Tensor, negatives: Tensor) -> list[float]:
    """Loss of every semi-hard triplet of the anchors of the rows."""
    terms = []
    for row, near in enumerate(distances.tolist()):
        for p, n in itertools.product(range(len(near)), repeat=2):
            if positives[row, p] and negatives[row, n] and near[p] < near[n] <= near[p] + 0.3:
                terms.append(near[p] - near[n] + 0.3)
    return terms


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("both_ways", [False, True])
def test_against_a_triple_loop(masked: bool, both_ways: bool) -> None:
    batch = batch_of(0, masked)
    module = module_of(Job("Semihard", both_ways=both_ways))
    loss, census = module.mine(batch, census=True)
    distances = torch.cdist(module.encoder(batch.query), module.encoder(batch.reference))
    negatives = NEGATIVES[0] if masked else ~POSITIVES[0]
    terms = triplets(distances, POSITIVES[0], negatives)
    assert len(terms) > 5
    if both_ways:
        terms += triplets(distances.T, POSITIVES[0].T, negatives.T)
    assert census.selected == len(terms)
    assert float(loss.detach()) == pytest.approx(sum(terms) / len(terms), rel=1e-10)


def with_masks(gather: bool, columns: str) -> str | float:
    """The loss of this rank, or the error about its masks."""
    rank = dist.get_rank()
    batch = batch_of(0, True, rank, 2)
    first = 4 * rank
    own = slice(first, first + len(batch.reference))
    if columns == "own":
        assert batch.negatives is not None
        batch = batch._replace(positives=batch.positives[:, own], negatives=batch.negatives[:, own])
    try:
        return float(module_of(Job("All"), gather=gather).mine(batch, census=False).loss.detach())
    except UserError as error:
        return str(error)


def test_columns_of_one_process_or_of_all(two_ranks: list[dict[str, list[Any]]]) -> None:
    one, two = (found["columns"] for found in two_ranks)
    told = (
        "positives: expected a column for each of the 14 references of all processes, in order of rank (4 + 10), "
        "got 4 on rank 0; masks of a process's own references need module.gather=false"
    )
    assert [one[0], two[0]] == [told, told], "every process says so"
    assert isinstance(one[1], float)
    assert isinstance(two[1], float)
    assert one[1] != two[1]
    assert one[2] == "positives: expected a column for each of 4 references, got 14"


def test_classes_are_both_ways_as_they_are(tmp_path: Path) -> None:
    module = module_of(Job("All", both_ways=True))
    with pytest.raises(UserError, match=r"^module.both_ways: expected pairs; with classes every sample is an anchor"):
        trainer(tmp_path).fit(module, loader([(QUERY[0], torch.arange(QUERIES) // 2)]))


def test_wrong_batches_are_named() -> None:
    batch = batch_of(0)
    module = module_of(Job("All"))
    with pytest.raises(
        UserError, match=r"^positives: expected a bool mask of shape \[B, G\], got torch.float32 \[10, 14\]"
    ):
        check_pair_batch(batch._replace(positives=batch.positives.float()))
    with pytest.raises(UserError, match=r"^negatives: expected a bool mask of shape \[B, G\], got list"):
        check_pair_batch(batch._replace(negatives=[1]))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^negatives: expected the shape of positives, \[10, 14\], got \[10, 13\]"):
        check_pair_batch(batch._replace(negatives=batch.positives[:, 1:]))
    with pytest.raises(
        UserError, match=r"^index: expected a tensor of shape \[10\], one integer per embedding, got \(9,\)"
    ):
        check_pair_batch(batch._replace(index=batch.index[1:]))
    with pytest.raises(UserError, match=r"^positives: expected a row for each of 9 queries, got 10 rows"):
        module.mine(batch._replace(query=batch.query[1:]), census=False)
    with pytest.raises(UserError, match=r"^positives: expected a column for each of 13 references, got 14"):
        module.mine(batch._replace(reference=batch.reference[1:]), census=False)
    remembers = module_of(Job("All"), memory=CrossBatchMemory(8, 4))
    with pytest.raises(UserError, match=r"^memory.size: a memory holds labels, and a PairBatch has none; expected 0"):
        remembers.mine(batch, census=False)


@pytest.mark.parametrize(
    ("side", "told"), [("query", r"query ids \[3\]"), ("reference", r"rows of the references \[3\]")]
)
def test_a_nan_is_named(side: str, told: str, tmp_path: Path) -> None:
    batch = batch_of(0)
    rows = getattr(batch, side).clone()
    rows[3] = torch.nan
    size = len(rows)
    with pytest.raises(UserError, match=rf"Two: NaN or infinity in 1 of {size} embeddings at step 0, {told}"):
        trainer(tmp_path).fit(module_of(Job("All")), loader([batch._replace(**{side: rows})]))


def test_a_trainer_trains_and_its_callbacks_bear_it(tmp_path: Path) -> None:
    batches = [batch_of(step) for step in range(3)]
    module, mined = module_of(Job("Semihard")), MinedTriplets()
    before = module.mine(batches[0], census=False).loss
    fit = trainer(tmp_path, max_epochs=30, callbacks=[mined, CollapseGuard()])
    fit.fit(module, loader(batches))
    assert module.mine(batches[0], census=False).loss != before
    assert {"train/loss", "train/semihard", "train/spread"} <= fit.callback_metrics.keys()
    assert mined.mined == {}
    assert module.health is not None
    assert int(module.health.anchors) > 5


def test_chunks_give_the_gradient_of_the_whole() -> None:
    found = []
    for chunk in (None, 3):
        module = module_of(Job("Semihard", chunk=chunk)).train()
        torch.autograd.backward(module.mine(batch_of(1), census=False).loss)
        found.append({"grads": {name: value.grad for name, value in module.named_parameters()}})
    assert gradient_error(*found) < 1e-12
