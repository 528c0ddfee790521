"""Operators and host syncs of mining one batch, with the gradient, beside their bars.

    python -m benchmarks.counts
    python -m benchmarks.counts --miners semihard batch_hard

A GPU waits for its host where operators are many and short, and for a copy where the host needs a value. Both can be
counted on the CPU (:mod:`benchmarks.gpu_counts`). Counted are the criterion, forward and backward, and
:meth:`metric_module.TripletModule.mine` with its backward pass, from the output of the encoder on: it also checks that
the embeddings are finite, and computes the diagnostics of the step. B=1024 in one block, D=128, two threads.

Shapes: B = batch, D = embedding size, K = samples of each class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from typing_extensions import override

from benchmarks.common import markdown
from benchmarks.gpu_cases import MINERS
from benchmarks.gpu_counts import Counts, counting
from benchmarks.mining_cases import MARGIN, MINED, Inputs, Work, inputs
from metric_module import TripletCriterion, TripletModule
from metric_module.criterion import block_size
from metric_module.distances import Euclidean
from metric_module.encoders import Encoder
from metric_module.miners import WindowMiner

BATCH, DIMENSION = 1024, 128
OPERATORS = {
    "semihard": 120,
    "all": 120,
    "hard": 120,
    "batch_hard": 120,
    "semihard_nearest": 180,
    "distance_weighted": 240,
}
"""Most operators of a call of the criterion without the census; a miner that is missing has no bar."""
CENSUS_OPERATORS = 80
"""Most operators that the census adds."""
HEADER = ("miner", "classes", "census", "operators", "bar", "syncs", "bar", "module: operators", "syncs", "met")

_ONE_BLOCK = 1 << 30  # bytes


class Counted(NamedTuple):
    """Counts of the criterion, and of the module that calls it."""

    criterion: Counts
    module: Counts


class _Output(Encoder):
    """Takes embeddings ``(B, D)`` in place of inputs."""

    embedding_dim = DIMENSION

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Return the embeddings."""
        return inputs


def counted(work: Work, device: str = "cpu") -> Counted:
    """Count one call of the criterion and one of the module, each after a call with a small batch.

    Args:
        work: The miner, the classes and the census.
        device: ``"cpu"`` or ``"cuda"``.
    """
    criterion = TripletCriterion(Euclidean(), MINERS[work.miner](), MARGIN, work.loss, census=work.census).to(device)
    module = TripletModule(_Output(), criterion)
    calls: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda embeddings, labels: criterion(embeddings, labels).loss,
        lambda embeddings, labels: module.mine((embeddings, labels), work.census).loss,
    ]
    small, data = inputs(Work(work.miner, 64, work.dimension)), inputs(work)
    with patch.object(block_size, "MEMORY_BUDGET", _ONE_BLOCK):
        found = []
        for call in calls:
            _count(call, small, device)
            found.append(_count(call, data, device))
    return Counted(*found)


def _count(call: Callable[[Tensor, Tensor], Tensor], data: Inputs, device: str) -> Counts:
    """Count a forward and a backward pass."""
    leaf, labels = data.embeddings.to(device).requires_grad_(), data.labels.to(device)  # (B, D), (B,)
    with counting(device) as counts:
        torch.autograd.grad(call(leaf, labels), leaf)
    return counts


def most_operators(work: Work) -> int | None:
    """Return the bar on the operators of the criterion; None if there is none."""
    bar = OPERATORS.get(work.miner)
    return None if bar is None else bar + CENSUS_OPERATORS * work.census


def most_syncs(work: Work) -> int:
    """Return the bar on the host syncs, of the criterion and of the module."""
    return 2 if isinstance(MINERS[work.miner](), WindowMiner) else 3


def works(miners: list[str]) -> list[Work]:
    """List each miner with even classes (K=4) and uneven ones, with and without the census."""
    return [
        Work(name, BATCH, DIMENSION, per_class, census=census)
        for name, per_class, census in product(miners, (4, None), (False, True))
    ]


def row(work: Work, found: Counted) -> list[str]:
    """Write a row of the table."""
    operators, syncs = most_operators(work), most_syncs(work)
    met = operators is None or found.criterion.operators <= operators
    met &= max(found.criterion.syncs, found.module.syncs) <= syncs
    return [
        work.miner,
        "uneven" if work.per_class is None else f"K={work.per_class}",
        "yes" if work.census else "no",
        str(found.criterion.operators),
        "-" if operators is None else f"<= {operators}",
        str(found.criterion.syncs),
        f"<= {syncs}",
        str(found.module.operators),
        str(found.module.syncs),
        "yes" if met else "no",
    ]


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miners", nargs="+", choices=list(MINERS), default=list(MINED))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(markdown(HEADER, [row(work, counted(work, options.device)) for work in works(options.miners)]))


if __name__ == "__main__":
    main()
