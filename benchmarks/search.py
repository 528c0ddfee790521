"""Exact search, next to faiss-cpu's flat index and to the bare matrix products.

    python -m benchmarks.search                                # 1,000,000 x 128, with 100 queries and with 1
    python -m benchmarks.search --items 200000 --repeats 5

All sides run in one process, one after the other in each round; times are medians over rounds, and ratios are medians
of the ratios within a round. The products are those of the same tiles in float32, whose results are thrown away: once
in as many Python threads as the search uses, once with the threads of torch. The neighbours are compared with a brute
force in float64. Memory is that of a fresh process which searches a memory-mapped file: the peak of its own memory
(RssAnon, read every millisecond) beyond what it held before, and of all resident pages with those of the file.
Linux only.

Shapes: Q = queries, M = gallery items, D = embedding size, K = neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import markdown
from benchmarks.mining_memory import give_back_free_memory, kilobytes, restart_peak
from metric_module import EmbeddingIndex
from metric_module.distances import Euclidean
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.exact.rounding import all_distances
from metric_module.evaluation.exact.threads import in_threads

K = 10
_TILE = 16_384  # about the tile of a search in 100 queries


def unit_vectors(rows: int, size: int, seed: int) -> Tensor:
    """Random unit vectors ``(rows, D)``."""
    made = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    return made.div_(torch.linalg.vector_norm(made, dim=1, keepdim=True))


def products(query: Tensor, gallery: Tensor) -> None:
    """Multiply in as many Python threads as the search uses, each taking the next tile."""
    queue = iter(torch.split(gallery, _TILE))

    def work(_: int) -> None:
        """Multiply tiles until none is left."""
        for tile in queue:
            query @ tile.T

    in_threads(work, range(torch.get_num_threads()))


def products_of_torch(query: Tensor, gallery: Tensor) -> None:
    """Multiply one tile after the other, with torch's own threads."""
    for tile in torch.split(gallery, _TILE):
        query @ tile.T


def brute_force(query: Tensor, gallery: Tensor) -> Tensor:
    """Positions ``(Q, K)`` of the nearest items from all float64 distances; equal ones in order of position."""
    found = []
    for row in query.split(1):  # type: ignore[no-untyped-call]
        parts = [all_distances(row, tile) for tile in torch.split(gallery, 100_000)]
        found.append(torch.cat(parts, dim=1).sort(dim=1, stable=True).indices[:, :K])
    return torch.cat(found)


def compare(query: Tensor, gallery: Tensor, repeats: int) -> str:
    """Measure all sides, and return a table."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatL2(gallery.shape[1])
    flat.add(gallery.numpy())
    sides: dict[str, Callable[[], object]] = {
        "products": lambda: products(query, gallery),
        "products, torch's threads": lambda: products_of_torch(query, gallery),
        "ours": lambda: nearest(query, gallery, K),
        "faiss, IndexFlatL2": lambda: flat.search(query.numpy(), K),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(repeats + 1):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            if step:  # the first round warms up
                seconds[side].append(time.perf_counter() - start)
    expected = brute_force(query, gallery)
    found = {"ours": nearest(query, gallery, K).positions, "faiss, IndexFlatL2": flat.search(query.numpy(), K)[1]}
    rows = []
    for side, own in seconds.items():
        ratio = statistics.median(ours / one for ours, one in zip(seconds["ours"], own, strict=True))
        equal = f"{int((torch.as_tensor(found[side]) == expected).all(dim=1).sum())}" if side in found else ""
        rows.append([side, f"{statistics.median(own):.4f}", f"{min(own):.4f}", f"{ratio:.2f}", equal])
    header = [f"{len(query)} queries", "median seconds", "least", "ours / this", "queries equal to brute force"]
    return markdown(header, rows)


def mapped(path: str, queries: int, size: int, threads: int) -> tuple[float, float]:
    """Search a memory-mapped file: peak megabytes of own memory and of all resident pages. Runs in a fresh process."""
    torch.set_num_threads(threads)
    query = unit_vectors(queries, size, seed=1)
    warm = EmbeddingIndex(None, Euclidean())
    warm.add(query)
    warm.search(query, K)
    index = EmbeddingIndex.read(path)
    give_back_free_memory()
    own, peak, done = kilobytes("RssAnon"), 0.0, threading.Event()

    def watch() -> None:
        """Read the memory again and again."""
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, kilobytes("RssAnon"))

    megabytes, watcher = restart_peak(), threading.Thread(target=watch)
    watcher.start()
    index.search(query, K)
    done.set()
    watcher.join()
    return (peak - own) / 1024, megabytes()


def memory(items: int, queries: int, size: int, threads: int) -> str:
    """Write a file, search it in a fresh process, and return a table."""
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=Path.cwd()) as folder:
        path, index = f"{folder}/index.arrow", EmbeddingIndex(None, Euclidean())
        for first in range(0, items, 100_000):
            index.add(unit_vectors(min(100_000, items - first), size, seed=first))
        index.write(path)
        del index
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            own, resident = pool.submit(mapped, path, queries, size, threads).result()
        file = Path(path).stat().st_size / 2**20
    header = [
        f"{queries} queries in a mapped file",
        "MB of the file",
        "peak MB of own memory",
        "with pages of the file",
    ]
    return markdown(header, [["ours", f"{file:.0f}", f"{own:.0f}", f"{resident:.0f}"]])


def main() -> None:
    """Measure time and memory, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="items in the gallery")
    parser.add_argument("--size", type=int, default=128, help="embedding size")
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 1], help="number of queries of each case")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=2, help="threads of every side")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    gallery = unit_vectors(arguments.items, arguments.size, seed=0)
    for queries in arguments.queries:
        query = unit_vectors(queries, arguments.size, seed=1)
        print(compare(query, gallery, arguments.repeats), "\n", flush=True)
    del gallery
    for queries in arguments.queries:
        print(memory(arguments.items, queries, arguments.size, arguments.threads), "\n", flush=True)


if __name__ == "__main__":
    main()
