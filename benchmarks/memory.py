"""Peak memory of mining, evaluation and training in fresh processes: the median and the worst of them.

    python -m benchmarks.memory                                      # every case, ten processes each
    python -m benchmarks.memory --cases semihard census --anchors 4096

What a process allocates is the same each time, but how the C library's heap fragments is not: hence the worst of
several. Memory is the peak beyond what the process holds with its inputs in place. Linux only.

Shapes: B = batch or samples, D = embedding size, Q = anchors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common import markdown, recipe
from benchmarks.mining_cases import MARGIN, Work, inputs
from benchmarks.mining_memory import restart_peak
from metric_module import TripletCriterion
from metric_module.distances import SNR, Cosine, Distance, Euclidean
from metric_module.evaluation import retrieval_metrics, verification_metrics
from metric_module.miners import All, BatchHard, DistanceWeighted, Miner, Semihard, SemihardNearest

Run = Callable[[Tensor, Tensor, int], object]
"""``run(embeddings (B, D), labels (B,), Q)``."""


class Size(NamedTuple):
    """Samples, embedding size, number of anchors (all if larger), and threads."""

    batch: int = 32_768
    dimension: int = 128
    anchors: int = 1 << 62
    threads: int = 2


class Measured(NamedTuple):
    """One process."""

    megabytes: float
    seconds: float


def mining(miner: Miner, distance: Distance | None = None, *, census: bool = False, loss: str = "hinge") -> Run:
    """Forward and backward of the criterion; with fewer anchors than samples, all samples are their references."""
    criterion = TripletCriterion(distance or Euclidean(), miner, margin=MARGIN, loss=loss, census=census)

    def run(embeddings: Tensor, labels: Tensor, anchors: int) -> None:
        """Mine one batch."""
        rows = embeddings.requires_grad_()
        if anchors < len(rows):
            ids = torch.arange(len(rows))
            output = criterion(rows[:anchors], labels[:anchors], rows, labels, ids=ids[:anchors], reference_ids=ids)
        else:
            output = criterion(rows, labels)
        output.loss.backward()

    return run


def training(embeddings: Tensor, labels: Tensor, anchors: int) -> None:
    """Train the default recipe for one epoch; the inputs are not used."""
    parts = recipe(["trainer.max_epochs=1"])
    parts.trainer.fit(parts.module, parts.datamodule)


CASES: dict[str, Callable[[], Run]] = {
    "semihard": lambda: mining(Semihard()),
    "census": lambda: mining(Semihard(), census=True),
    "soft": lambda: mining(All(), loss="soft"),
    "batch_hard": lambda: mining(BatchHard()),
    "semihard_nearest": lambda: mining(SemihardNearest(), census=True),
    "distance_weighted": lambda: mining(DistanceWeighted(), census=True),
    "cosine": lambda: mining(Semihard(), Cosine(), census=True),
    "snr": lambda: mining(Semihard(), SNR(), census=True),
    "retrieval": lambda: lambda rows, labels, anchors: retrieval_metrics(rows, labels),
    "retrieval_snr": lambda: lambda rows, labels, anchors: retrieval_metrics(rows, labels, distance=SNR()),
    "verification": lambda: lambda rows, labels, anchors: verification_metrics(rows, labels),
    "training": lambda: training,
}


def measure(case: str, size: Size) -> Measured:
    """Run a case in this process, after a warm-up on a tiny set."""
    torch.set_num_threads(size.threads)
    run = CASES[case]()
    if case != "training":
        run(*inputs(Work("semihard", 64, size.dimension)), 64)
    data = inputs(Work("semihard", size.batch, size.dimension))
    megabytes, start = restart_peak(), time.perf_counter()
    run(*data, size.anchors)
    return Measured(megabytes(), time.perf_counter() - start)


def fresh(case: str, size: Size) -> Measured:
    """Measure a case in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, case, size).result()


def main() -> None:
    """Measure the chosen cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which cases")
    parser.add_argument("--processes", type=int, default=10, help="fresh processes for each case")
    for name, value in Size._field_defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    size = Size(*(getattr(arguments, name) for name in Size._fields))
    rows = []
    for case in arguments.cases:
        found = [fresh(case, size) for _ in range(arguments.processes)]
        megabytes = sorted(one.megabytes for one in found)
        print(case, *(f"{value:.0f}" for value in megabytes), flush=True)
        seconds = statistics.median(one.seconds for one in found)
        rows.append([case, f"{statistics.median(megabytes):.0f}", f"{megabytes[-1]:.0f}", f"{seconds:.1f}"])
    print(markdown(["case", "median MB", "worst MB", "seconds"], rows))


if __name__ == "__main__":
    main()
