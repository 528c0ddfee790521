"""Images per second from an HTTP server with a delay for each request, and from local files, in the same loader.

    python -m benchmarks.object_store --size 224 --workers 1 2 --delay 0.02

JPEGs of 500 x 375 pixels, each once, in batches of 64. The sides take turns in each round, the first round is dropped,
and figures are medians over the rounds. Images per second count from the arrival of the first batch to that of the
last, so without the start of the workers; those of each round are printed too. "Cold" starts with an empty cache,
"warm" has every object in it. The server is a process of its own on the same cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import markdown
from benchmarks.loading import BATCH, write_images
from datamodules import ManifestDataModule


@contextmanager
def delayed_server(folder: Path, delay: float) -> Iterator[str]:
    """Serve a folder with a delay for each request, and yield the address."""
    command = [sys.executable, "-m", "benchmarks.delayed_server", str(folder), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


def write_table(folder: Path) -> Path:
    """List the images in a table."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
    table = folder / "table.csv"
    table.write_text("".join(["file,label\n", *(f"{path},{path.partition('/')[0]}\n" for path in paths)]))
    return table


def once(table: Path, root: str, cache: Path, size: int, workers: int) -> float:
    """Images per second after the first batch."""
    data = ManifestDataModule(
        table=str(table), image="file", root=root, cache_dir=str(cache), image_size=size, num_workers=workers,
        eval_batch_size=BATCH, preflight=False, augment=None,
    )  # fmt: skip
    start, seen = 0.0, 0
    for batch in data.eval_dataloader("all"):
        if not start:
            start = time.perf_counter()
        else:
            seen += len(batch.index)
    return seen / (time.perf_counter() - start)


def compare(folder: Path, address: str, size: int, workers: int, rounds: int) -> list[list[str]]:
    """A row of the table for each side."""
    table = write_table(folder)
    found: dict[str, list[float]] = {"local files": [], "cold": [], "warm": []}
    for number in range(rounds + 1):
        cache = folder / f"cache {workers} {number}"  # kept: ext4 creates files slowly after many were deleted
        for name, rates in found.items():
            root = str(folder) if name == "local files" else address
            rates.append(once(table, root, cache, size, workers))
            print(f"{workers} workers, {name}: {rates[-1]:,.0f} images/s", file=sys.stderr, flush=True)
    speed = {name: statistics.median(rates[1:]) for name, rates in found.items()}
    plain = speed["local files"]
    return [[str(size), str(workers), name, f"{rate:,.0f}", f"{rate / plain:.2f}"] for name, rate in speed.items()]


def main() -> None:
    """Measure every number of workers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--delay", type=float, default=0.02, help="seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder, classes=20, each=given.images // 20)
        with delayed_server(folder, given.delay) as address:
            rows = [
                row for workers in given.workers for row in compare(folder, address, given.size, workers, given.rounds)
            ]
    print(markdown(["size", "workers", "side", "images/s", "of local files"], rows))


if __name__ == "__main__":
    main()
