"""Set-up and memory of a table of millions of rows: seconds until the first batch can be drawn, and memory of it all.

    python -m benchmarks.manifest --rows 10_000_000 --classes 100_000
    python -m benchmarks.manifest --rows 10_000_000 --classes 1_000_000 --format csv --split-classes

Writes a table of paths, labels and splits into a temporary folder, and sets up ``ManifestDataModule`` on it, without
preflight, in a process of its own. Memory is the proportional set size (PSS) of that process and its workers together,
while batches are drawn, less what it was after all imports. There are no pictures behind the paths: workers make each
path and give an empty image for it, so the batches under way are counted and decoding is not. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from benchmarks.common import markdown, peak_megabytes, proportional_megabytes
from datamodules import ManifestDataModule
from metric_module.preprocessing import ImageInput


class Measured(NamedTuple):
    """Seconds and megabytes of one table."""

    file: float
    setup: float
    processor: float
    first_batch: float
    memory: float
    peak: float


def write_table(path: Path, rows: int, classes: int) -> None:
    """A row for each sample: a path of its own, the name of its class, and a split of the classes."""
    number = pa.array(np.arange(rows))
    label = np.random.default_rng(0).permutation(np.arange(rows) % classes)  # (N,)
    digits = pc.utf8_lpad(pa.array(label).cast(pa.string()), 8, "0")
    files = pc.utf8_lpad(number.cast(pa.string()), 9, "0")
    table = pa.table(
        {
            "path": pc.binary_join_element_wise("images/", digits, "/", files, ".jpg", ""),
            "person": pc.binary_join_element_wise("person_", digits, ""),
            "split": pa.array(np.array(["train", "train", "train", "val", "test"]))
            .dictionary_encode()
            .dictionary.take(pa.array(np.array([0, 0, 0, 1, 2])[label % 5])),
            "unused": number,
        }
    )
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path, row_group_size=1 << 20)


def measure(path: str, column_of_splits: bool, workers: int, batches: int, image_size: int) -> Measured:
    """Set the data module up, in this process, and draw batches."""
    before = proportional_megabytes()
    start, busy = time.perf_counter(), time.process_time()
    data = ManifestDataModule(
        table=path,
        image="path",
        label="person",
        split="split" if column_of_splits else None,
        num_workers=workers,
        image_size=image_size,
        preflight=False,
        augment=None,
    )
    data.prepare_data()
    data.setup("fit")
    setup, processor = time.perf_counter() - start, time.process_time() - busy
    with patch.object(ImageInput, "pixels", empty_image):
        iterator = iter(data.train_dataloader())
        next(iterator)
        first = time.perf_counter() - start
        for _ in islice(iterator, batches):
            pass
        after = proportional_megabytes()
    return Measured(Path(path).stat().st_size / 1e6, setup, processor, first, after - before, peak_megabytes())


def empty_image(reading: ImageInput, path: str, box: None) -> npt.NDArray[np.uint8]:
    """Return a stand-in for a picture, after its path was built."""
    return np.full((reading.size, reading.size, 3), len(path), dtype=np.uint8)


def measure_apart(path: Path, given: argparse.Namespace) -> Measured:
    """Write the table in one process and measure in another; the workers are forked, as those of a training are."""
    writer = get_context("spawn").Process(target=write_table, args=(path, given.rows, given.classes))
    writer.start()
    writer.join()
    words = ["--measure", str(path), "--workers", str(given.workers), "--batches", str(given.batches)]
    words += ["--image-size", str(given.image_size)]
    words += ["--split-classes"] if given.split_classes else []
    command = [sys.executable, "-m", "benchmarks.manifest", *words]
    return Measured(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main() -> None:
    """Write the table if it is missing, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--image-size", type=int, default=64, help="batches under way count too")
    parser.add_argument("--measure", help="a table that is there already; prints figures alone")
    parser.add_argument("--split-classes", action="store_true", help="split by class, not by a column of the table")
    given = parser.parse_args()
    if given.measure:
        print(
            json.dumps(measure(given.measure, not given.split_classes, given.workers, given.batches, given.image_size))
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table.{given.format}"
        found = measure_apart(path, given)
    header = [
        "rows",
        "classes",
        "table",
        "set-up",
        "its CPU time",
        "to the first batch",
        f"PSS, {given.workers} workers",
        "peak RSS",
    ]
    seconds = [f"{found.setup:.2f} s", f"{found.processor:.2f} s", f"{found.first_batch:.2f} s"]
    cells = [f"{given.rows:,}", f"{given.classes:,}", f"{given.format}, {found.file:,.0f} MB", *seconds]
    print(markdown(header, [[*cells, f"{found.memory:,.0f} MB", f"{found.peak:,.0f} MB"]]))


if __name__ == "__main__":
    main()
