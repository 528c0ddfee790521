"""Gain of ``torch.compile``: encoders and the criterion, forward and backward, compiled and as they are.

    python -m benchmarks.compiled                    # needs a C++ compiler
    python -m benchmarks.compiled --cases criterion_semihard

Float32 on the CPU, the default backend. The two sides take turns in one run; times are medians, the ratio is taken
round by round. The first call compiles, without what earlier runs have compiled. A graph break is a place that cannot
be compiled, where Python takes over.

Shapes: B = batch, S = pixels of a side, D = embedding size.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from benchmarks.common import markdown
from benchmarks.gpu_cases import MINERS
from benchmarks.mining_cases import MARGIN, Work, inputs
from benchmarks.mining_measure import Measured, interleave
from benchmarks.mining_table import number
from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.encoders import ConvNet, TimmEncoder

HEADER = ("work", "as it is, ms", "compiled, ms", "compiled/as it is", "first call, s", "graph breaks")


class Case(NamedTuple):
    """A module, and how to run it forward: ``run(module)`` returns a scalar."""

    title: str
    module: nn.Module
    run: Callable[[nn.Module], Tensor]


def encoder_case(title: str, encoder: nn.Module, batch: int, pixels: int) -> Case:
    """Build a case of an encoder of images."""
    images = torch.rand(batch, 3, pixels, pixels)  # (B, 3, S, S)
    return Case(f"{title}, {batch} images of {pixels} pixels", encoder, lambda module: module(images).square().sum())


def criterion_case(miner: str, batch: int = 1024) -> Case:
    """Build a case of the criterion."""
    data = inputs(Work(miner, batch))
    leaf = data.embeddings.requires_grad_()  # (B, D)
    criterion = TripletCriterion(Euclidean(), MINERS[miner](), MARGIN, census=False)
    return Case(f"criterion, {miner}, B={batch}", criterion, lambda module: module(leaf, data.labels).loss)


CASES: dict[str, Callable[[], Case]] = {
    "conv_net": lambda: encoder_case("conv_net", ConvNet(), 256, 64),
    "resnet18": lambda: encoder_case("resnet18", TimmEncoder("resnet18"), 64, 96),
    "criterion_semihard": lambda: criterion_case("semihard"),
    "criterion_batch_hard": lambda: criterion_case("batch_hard"),
    "criterion_distance_weighted": lambda: criterion_case("distance_weighted"),
}


def measure(case: Case, repeats: int) -> list[str]:
    """Measure a case, as a row of the table."""
    compiled = copy.deepcopy(case.module)
    compiled.compile()

    def step(module: nn.Module) -> float:
        """Forward and backward; seconds."""
        start = time.perf_counter()
        torch.autograd.backward(case.run(module))
        return time.perf_counter() - start

    counters.clear()
    first = step(compiled)
    breaks = sum(counters["graph_break"].values())
    found = Measured(interleave({"plain": lambda: step(case.module), "compiled": lambda: step(compiled)}, repeats))
    figures = [found.milliseconds("plain"), found.milliseconds("compiled"), found.ratio("compiled", "plain"), first]
    return [case.title, *map(number, figures), str(breaks)]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.compiler.config.force_disable_caches = True
    torch.manual_seed(0)
    print(markdown(HEADER, [measure(CASES[name](), options.repeats) for name in options.cases]))


if __name__ == "__main__":
    main()
