"""Measure what each stage costs with millions of samples and classes, each in a fresh process of one thread.

    python -m benchmarks.scale                                         # ten million samples of a million classes
    python -m benchmarks.scale --samples 1_000_000 --classes 100_000 --cases sampler epoch

Stages that compare everything with everything (near classes, figures) take some queries against the whole set. Their
time is proportional to the number of queries, and the column "all of it" multiplies accordingly. Time is that of the
processor. Memory is the peak beyond what the process holds with its inputs in place. Linux only.

Shapes: N = samples, C = classes, M = embeddings to evaluate, D = embedding size, Q = queries, K = neighbours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch

from benchmarks.common import markdown
from benchmarks.mining_memory import restart_peak
from datamodules import PKSampler
from datamodules.sampling.neighbourhoods import grouped
from metric_module.evaluation import retrieval_metrics
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.retrieval import PerQuery
from metric_module.report.contents import Run
from metric_module.report.run_page import run_page
from metric_module.report.samples.neighbours import Items

CLASSES_PER_BATCH, SAMPLES_PER_CLASS = 64, 4
CLASS_SIZE = 10  # samples of a class in the evaluation
SPREAD = 1.2  # of a class around its centre: with a million embeddings of 128 numbers, MAP@R is 0.61
NEIGHBOURS = 24  # kept for each class with groups of 4


class Size(NamedTuple):
    """N, C, M, D and Q."""

    samples: int = 10_000_000
    classes: int = 1_000_000
    embeddings: int = 1_000_000
    dimension: int = 128
    queries: int = 4_000


class Measured(NamedTuple):
    """One stage: seconds, peak memory, and the share of the stage that was measured."""

    seconds: float
    megabytes: float
    share: float


class Stage(NamedTuple):
    """Function to measure, and its share of the whole stage."""

    run: Callable[[], object]
    share: float = 1.0


def labels(size: Size) -> torch.Tensor:
    """Class of each sample in random order, dense int32 ``(N,)``."""
    return torch.randperm(size.samples, generator=torch.Generator().manual_seed(0)).remainder_(size.classes).int()


def sampler_set_up(size: Size) -> Stage:
    """Group the samples by class."""
    given = labels(size)
    return Stage(lambda: PKSampler(given, CLASSES_PER_BATCH, SAMPLES_PER_CLASS))


def epoch(size: Size) -> Stage:
    """Draw the ids of every batch of an epoch, one after another, as a training does."""
    prepared = PKSampler(labels(size), CLASSES_PER_BATCH, SAMPLES_PER_CLASS)
    return Stage(lambda: sum(1 for _ in prepared))


def near_classes(size: Size) -> Stage:
    """Find the nearest classes of some classes, which is most of a table of neighbours."""
    centres = unit_rows(size.classes, size.dimension)  # (C, D)
    own = torch.arange(min(size.queries, size.classes))
    return Stage(lambda: nearest(centres[own], centres, NEIGHBOURS, exclude=own), len(own) / size.classes)


def round_of_groups(size: Size) -> Stage:
    """Order the classes of a round in groups of near ones."""
    table = torch.randint(size.classes, (size.classes, NEIGHBOURS), dtype=torch.int32)  # (C, N)
    keyed = torch.randperm(size.classes)
    return Stage(lambda: grouped(keyed, table, CLASSES_PER_BATCH, 4, CLASSES_PER_BATCH))


def figures(size: Size, all_ranks: bool = False) -> Stage:
    """Compute the figures of retrieval for some queries in the whole gallery."""
    gallery, given = embeddings(size)  # (M, D), (M,)
    count = min(size.queries, size.embeddings)
    ids = torch.arange(size.embeddings)

    def run() -> object:
        """Evaluate the first Q embeddings."""
        return retrieval_metrics(
            gallery[:count],
            given[:count],
            ids[:count],
            gallery=gallery,
            gallery_labels=given,
            gallery_ids=ids,
            all_ranks=all_ranks,
        )

    return Stage(run, count / size.embeddings)


def embeddings(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of length one ``(M, D)`` around a centre for each class, and their classes ``(M,)``."""
    given = torch.arange(size.embeddings) // CLASS_SIZE  # (M,)
    centres = unit_rows(-(-size.embeddings // CLASS_SIZE), size.dimension)
    return torch.nn.functional.normalize(unit_rows(size.embeddings, size.dimension, 1) * SPREAD + centres[given]), given


def unit_rows(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    """Random rows of length one, ``(count, dimension)``."""
    rows = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))
    return rows.div_(rows.norm(dim=1, keepdim=True))


def report(size: Size) -> Stage:
    """Write the report of an evaluation, without pictures."""
    ids = torch.arange(size.embeddings)  # (M,)
    items = Items(*embeddings(size), ids, ids)
    first = ids % 3 + 1  # (M,), a third of the queries is right
    precision = first.double().reciprocal()
    queries = PerQuery(ids, first, precision, precision, precision)
    run = Run("Scale", "test", {"test": {"recall_at_1": 1 / 3}}, margin=0.2, items=items, queries=queries)
    return Stage(lambda: run_page(run))


CASES: dict[str, Callable[[Size], Stage]] = {
    "sampler": sampler_set_up,
    "epoch": epoch,
    "near_classes": near_classes,
    "groups": round_of_groups,
    "figures": figures,
    "all_ranks": lambda size: figures(size, all_ranks=True),
    "report": report,
}


def measure(case: str, size: Size) -> Measured:
    """Run a stage in this process."""
    torch.set_num_threads(1)
    stage = CASES[case](size)
    megabytes, start = restart_peak(), time.process_time()
    stage.run()
    return Measured(time.process_time() - start, megabytes(), stage.share)


def main() -> None:
    """Measure the chosen stages, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which stages")
    for name, value in Size._field_defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    size = Size(*(getattr(given, name) for name in Size._fields))
    rows = []
    for case in given.cases:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(measure, case, size).result()
        print(case, found, flush=True)
        seconds = f"{found.seconds / found.share:,.1f}"
        rows.append([case, f"{found.share:.3%}", f"{found.seconds:.1f}", seconds, f"{found.megabytes:,.0f}"])
    print(markdown(["stage", "measured", "seconds", "all of it, seconds", "memory, MB"], rows))


if __name__ == "__main__":
    main()
