"""Time and memory of evaluation, compared with the peers and with the bare matrix products of the distances.

    python -m benchmarks.evaluation                      # every case; about half an hour on two cores
    python -m benchmarks.evaluation --cases narrow --repeats 5

Every side runs in a fresh process, on the same embeddings, one after the other in each round; times are medians over
rounds, memory is the peak beyond what the process holds with its inputs in place. The floor is the matrix products of
all pairs in float32, in blocks, whose results are thrown away. Linux only.

Shapes: N = samples, Q = queries, M = gallery items, D = embedding size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common import markdown
from benchmarks.mining_memory import restart_peak
from metric_module.evaluation import retrieval_metrics, verification_metrics

Figures = Mapping[str, float]


class Case(NamedTuple):
    """One comparison: N samples of D numbers, the last Q of them queries in a gallery of the others, and its sides."""

    samples: int
    size: int
    classes: int
    sides: tuple[str, ...]
    queries: int = 0


CASES = {
    "wide": Case(60_000, 512, 11_000, ("products", "ours", "ours, all ranks", "pml")),
    "narrow": Case(60_000, 128, 11_000, ("products", "ours", "ours, all ranks", "pml")),
    "gallery": Case(1_002_000, 64, 100_000, ("products", "ours, all ranks", "brute force"), queries=2_000),
    "small": Case(4_000, 128, 800, ("products", "ours", "ours, all ranks", "pml", "torchmetrics")),
    "verification": Case(10_000, 128, 1_000, ("products", "ours, verification", "torchmetrics, verification")),
}


class Measured(NamedTuple):
    """One side in one round."""

    seconds: float
    megabytes: float
    figures: Figures


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Unit vectors ``(N, D)`` around one centre per class, and labels ``(N,)``."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, case.classes, (case.samples,), generator=generator)
    rows = torch.randn(case.classes, case.size, generator=generator)[labels]
    for part in torch.split(rows, 100_000):
        # What leaves about half of the queries right at rank 1, whatever the size.
        part += 1.6 * (case.size / 128) ** 0.25 * torch.randn(part.shape, generator=generator)
        part /= torch.linalg.vector_norm(part, dim=1, keepdim=True)
    return rows, labels


def products(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """The floor."""
    query, gallery = (rows, rows) if not case.queries else (rows[-case.queries :], rows[: -case.queries])
    for block in torch.split(query, 1024):
        for columns in torch.split(gallery, 8192):
            block @ columns.T
    return {}


def ours(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """recall_at_k, r_precision and map_at_r."""
    return retrieval_metrics(rows, labels, all_ranks=False)


def all_ranks(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """Every retrieval figure."""
    if not case.queries:
        return retrieval_metrics(rows, labels)
    first = len(rows) - case.queries
    return retrieval_metrics(rows[first:], labels[first:], gallery=rows[:first], gallery_labels=labels[:first])


def pml(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """precision_at_1, r_precision and map_at_r of pytorch-metric-learning, by faiss."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(rows, labels)
    return {name: float(value) for name, value in found.items()}


def torchmetrics(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """R-precision, MAP and MRR of torchmetrics, query by query as its functions are; scores are made positive."""
    from torchmetrics.functional.retrieval import (
        retrieval_average_precision,
        retrieval_r_precision,
        retrieval_reciprocal_rank,
    )

    functions = {"r_precision": retrieval_r_precision, "map": retrieval_average_precision}
    functions["mrr"] = retrieval_reciprocal_rank
    sums, count = dict.fromkeys(functions, 0.0), 0
    for row in range(len(rows)):
        score = 4 - torch.linalg.vector_norm(rows - rows[row], dim=1)  # (N,)
        others = torch.arange(len(rows)) != row
        hits = labels[others] == labels[row]
        if bool(hits.any()):
            count += 1
            for name, function in functions.items():
                sums[name] += float(function(score[others], hits))
    return {name: value / count for name, value in sums.items()}


def brute_force(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """The figures from float64 distances of whole rows, sorted."""
    first, found = len(rows) - case.queries, []
    for query, label in zip(rows[first:].double(), labels[first:], strict=True):
        distances = torch.cat(
            [torch.cdist(query[None], part.double())[0] for part in torch.split(rows[:first], 50_000)]
        )
        same = labels[:first] == label
        if not bool(same.any()):
            continue
        limit, others = distances[same].sort().values, distances[~same]  # (R,), (M - R,)
        closer = torch.stack([(others <= edge).sum() for edge in limit])  # (R,)
        rank = closer + torch.arange(1, len(limit) + 1)  # (R,)
        hits = torch.arange(1, len(limit) + 1) / rank.double()
        near = rank <= len(limit)
        found.append(
            [float(rank[0] <= 1), float(near.double().mean()), float(hits[near].sum() / len(limit)), float(hits.mean())]
        )
    means = torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist()
    return dict(zip(("recall_at_1", "r_precision", "map_at_r", "map"), means, strict=True))


def our_verification(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """All pairs."""
    return verification_metrics(rows, labels)


def their_verification(case: Case, rows: Tensor, labels: Tensor) -> Figures:
    """Area under the curve of torchmetrics, which takes the scores of all pairs."""
    from torchmetrics.functional.classification import binary_auroc

    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    parts = zip(torch.split(first, 1 << 20), torch.split(second, 1 << 20), strict=True)
    scores = torch.cat([(rows[one] * rows[other]).sum(dim=1) for one, other in parts])
    return {"roc_auc": float(binary_auroc(scores / 2 + 0.5, (labels[first] == labels[second]).long()))}


SIDES: dict[str, Callable[[Case, Tensor, Tensor], Figures]] = {
    "products": products,
    "ours": ours,
    "ours, all ranks": all_ranks,
    "pml": pml,
    "torchmetrics": torchmetrics,
    "brute force": brute_force,
    "ours, verification": our_verification,
    "torchmetrics, verification": their_verification,
}


def measure(name: str, side: str, threads: int) -> Measured:
    """One side in this process, after a warm-up on a tiny set."""
    torch.set_num_threads(threads)
    case = CASES[name]
    tiny = case._replace(samples=400, classes=50, queries=min(case.queries, 100))
    SIDES[side](tiny, *inputs(tiny))
    rows, labels = inputs(case)
    megabytes, start = restart_peak(), time.perf_counter()
    figures = SIDES[side](case, rows, labels)
    seconds = time.perf_counter() - start
    return Measured(seconds, megabytes(), figures)


def run(name: str, repeats: int, threads: int) -> dict[str, list[Measured]]:
    """Every side of a case, one after the other, in each round."""
    found: dict[str, list[Measured]] = {side: [] for side in CASES[name].sides}
    for _ in range(repeats):
        for side, measured in found.items():
            if side in {"torchmetrics", "brute force"} and measured:
                continue  # minutes of Python; once is enough
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                measured.append(pool.submit(measure, name, side, threads).result())
    return found


def table(name: str, found: Mapping[str, list[Measured]]) -> str:
    """Ratios to ours, and the figures of every side."""
    mine = next(side for side in found if side.startswith("ours"))
    rows = []
    for side, measured in found.items():
        ratios = [one.seconds / own.seconds for one, own in zip(measured, found[mine], strict=False)]
        memory = statistics.median(one.megabytes for one in measured)
        figures = ", ".join(f"{key} {value:.5f}" for key, value in measured[0].figures.items() if 0 < value < 1)
        seconds = statistics.median(one.seconds for one in measured)
        rows.append([side, f"{seconds:.1f}", f"{statistics.median(ratios):.2f}", f"{memory:,.0f}", figures])
    return markdown([name, "seconds", "time / ours", "MB", "figures"], rows)


def main() -> None:
    """Measure the chosen cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which cases")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=2, help="threads of every side")
    arguments = parser.parse_args()
    for name in arguments.cases:
        print(table(name, run(name, arguments.repeats, arguments.threads)), "\n", flush=True)


if __name__ == "__main__":
    main()
