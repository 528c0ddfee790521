"""Peak memory and speed of ``task=embed``: ``python -m benchmarks.embedding``. Linux only.

Synthetic samples go through a linear encoder, so that time and memory are those of reading, writing and sorting. Each
row is a fresh process; memory is the peak of the resident set beyond what was there once libraries were loaded and a
small set had been embedded.

Shapes: N = samples, D = embedding size, B = samples of a batch, F = numbers of an input.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from benchmarks.common import markdown
from benchmarks.mining_memory import restart_peak
from metric_module import Batch, TripletCriterion, TripletModule
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.miners import All
from metric_module.tasks.build import Parts
from metric_module.tasks.embedding.task import embed_to_file

F, D, B = 16, 128, 1024
SIDES = ("arrow", "parquet", "npz")


class Synthetic(Dataset[Batch]):
    """Batches of random samples, made when they are asked for."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.samples // B)

    @override
    def __getitem__(self, number: int) -> Batch:
        ids = torch.arange(number * B, min(self.samples, (number + 1) * B))  # (B,)
        inputs = torch.randn(len(ids), F, generator=torch.Generator().manual_seed(number))  # (B, F)
        return Batch(inputs, ids % 1000, ids)


class SyntheticData(LightningDataModule):
    """Synthetic samples to test on."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.dataset = Synthetic(samples)

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.dataset, batch_size=None)


def measure(side: str, samples: int) -> tuple[float, float]:
    """Megabytes beyond what was there before, and seconds. Runs in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=Path.cwd()) as folder:
        run(side, 4 * B, Path(folder))
        megabytes, start = restart_peak(), time.perf_counter()
        run(side, samples, Path(folder))
        return megabytes(), time.perf_counter() - start


def run(side: str, samples: int, folder: Path) -> None:
    """Embed so many samples."""
    module = TripletModule(MLP(in_features=F, embedding_dim=D, hidden=()), TripletCriterion(Euclidean(), All()))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=folder, **quiet)  # type: ignore[arg-type]
    parts = Parts(module, SyntheticData(samples), trainer)
    embed_to_file(parts, "test", folder / f"embeddings.{side}")


def main() -> None:
    """Measure every number of samples, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000])
    rows = []
    for samples in parser.parse_args().samples:
        for side in SIDES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                megabytes, seconds = pool.submit(measure, side, samples).result()
            rows.append([side, f"{samples:,}", f"{4 * D * samples / 2**20:.0f}", f"{megabytes:.0f}", f"{seconds:.1f}"])
    print(markdown(["", "samples", "MB of embeddings", "peak MB", "seconds"], rows))


if __name__ == "__main__":
    main()
