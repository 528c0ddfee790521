"""One training step on one process and on two: time and peak memory of each, for the same global batch.

    python -m benchmarks.ranks --batch 4096 --ranks 1 2

Every process has one thread. A step is the default encoder on 64 x 64 pixels, gathering, semi-hard mining, and the way
back, under DistributedDataParallel over gloo. Memory is the peak of a process beyond what it holds with its share of
the inputs in place. Linux only.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import markdown
from benchmarks.mining_memory import restart_peak
from metric_module import TripletCriterion, TripletModule
from metric_module.distances import Euclidean
from metric_module.encoders import ConvNet
from metric_module.miners import Semihard


class Measured(NamedTuple):
    """One process: seconds of a step (median), peak memory of the first, and its loss."""

    seconds: float
    megabytes: float
    loss: float


class Step(nn.Module):
    """A step as ``TripletModule`` takes it, for DistributedDataParallel to wrap."""

    def __init__(self, module: TripletModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of the global batch."""
        return self.module.mine((inputs, labels), census=False).loss


def measure(rank: int, ranks: int, port: int, batch: int, repeats: int) -> Measured:
    """Take steps on this process's share of the batch."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    share = batch // ranks
    module = TripletModule(ConvNet(), TripletCriterion(Euclidean(), Semihard(), census=False))
    for part in module.encoder.modules():  # its samples would interact through the statistics
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    step = DistributedDataParallel(Step(module))
    rows = slice(rank * share, (rank + 1) * share)
    inputs = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))[rows].clone()
    labels = (torch.arange(batch) // 4)[rows]
    torch.autograd.backward(step(inputs[:8], labels[:8]))
    megabytes = restart_peak()
    seconds, loss = [], torch.zeros(())
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        loss = step(inputs, labels)
        torch.autograd.backward(loss)
        seconds.append(time.perf_counter() - start)
    peak = megabytes()
    dist.destroy_process_group()
    return Measured(statistics.median(seconds), peak, loss.item())


def on_ranks(ranks: int, batch: int, repeats: int) -> list[Measured]:
    """Measure all processes of a group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ProcessPoolExecutor(ranks, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(measure, rank, ranks, port, batch, repeats) for rank in range(ranks)]
        return [job.result() for job in jobs]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096, help="global batch")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for ranks in options.ranks:
        found = on_ranks(ranks, options.batch, options.repeats)
        peak, seconds = max(one.megabytes for one in found), max(one.seconds for one in found)
        rows.append([str(ranks), f"{seconds:.2f}", f"{peak:.0f}", f"{found[0].loss:.6f}"])
        print(" | ".join(rows[-1]), flush=True)
    print(f"\ntorch {torch.__version__}, global batch {options.batch}\n")
    print(markdown(["processes", "seconds of a step", "peak MB of a process", "loss"], rows))


if __name__ == "__main__":
    main()
