"""Images per second of ONNX Runtime beside torch, for the default encoder and ResNet-18 at 64 x 64 pixels.

    python -m benchmarks.onnx --threads 2 --rounds 15

Both embed the same random images on the CPU with the same number of threads. They take turns in one process, and the
table has the median of the rounds. torch runs as ``Embedder.embed`` does, in inference mode and in float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.common import markdown
from metric_module import Embedder, Encoder
from metric_module.distances import Euclidean
from metric_module.encoders import ConvNet, TimmEncoder
from metric_module.export.onnx import write_onnx
from metric_module.preprocessing import ImageInput

SIZE = 64
BATCHES = (1, 64)
ENCODERS: dict[str, Callable[[], Encoder]] = {"conv_net": ConvNet, "timm resnet18": lambda: TimmEncoder("resnet18")}
SECONDS = 0.3
"""Least duration of one measurement."""


def rate(call: Callable[[], object], images: int) -> float:
    """Images per second over at least ``SECONDS``."""
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        call()
        calls += 1
    return calls * images / passed


def compare(embedder: Embedder, batch_size: int, threads: int, rounds: int) -> tuple[list[float], list[float]]:
    """Images per second of torch and of ONNX Runtime in each round, after one for warm-up."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        write_onnx(embedder, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = torch.randn(batch_size, 3, SIZE, SIZE)
    arrays = {"inputs": inputs.numpy()}
    pairs = [
        (rate(lambda: embedder.embed(inputs), batch_size), rate(lambda: session.run(None, arrays), batch_size))
        for _ in range(rounds + 1)
    ]
    return [torch_rate for torch_rate, _ in pairs[1:]], [onnx_rate for _, onnx_rate in pairs[1:]]


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, build in ENCODERS.items():
        embedder = Embedder(build(), Euclidean(), ImageInput(SIZE), device="cpu")
        for batch_size in BATCHES:
            ours, onnx = compare(embedder, batch_size, options.threads, options.rounds)
            ratios = [b / a for a, b in zip(ours, onnx, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            row = [name, str(batch_size), *(f"{statistics.median(rates):,.0f}" for rates in (ours, onnx)), spread]
            rows.append(row)
    print(markdown(["encoder", "batch size", "torch, images/s", "ONNX Runtime, images/s", "ratio by round"], rows))
    print(f"images of {SIZE} x {SIZE} pixels, {options.threads} threads, medians of {options.rounds} rounds")


if __name__ == "__main__":
    main()
