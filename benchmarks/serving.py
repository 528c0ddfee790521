"""Requests per second and latency of ``task=serve`` over loopback: ``python -m benchmarks.serving``.

Each request is one JPEG. The server is a process of its own; the client keeps its connections open and sends the next
request on each as soon as it has its answer. Beside it stands the encoder alone, on the same images: decoded before, in
batches of 1 and of 32; and decoded by it, one at a time. All rows alternate, and medians of the repeats are printed.

Legend: N = images, S = side in pixels.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import markdown
from metric_module import Embedder
from metric_module.distances import Euclidean
from metric_module.encoders import ConvNet, TimmEncoder
from metric_module.preprocessing import ImageInput

SIDES = {"conv_net": 64, "resnet18": 224}
N = 64
CONNECTIONS = (1, 32)


def model(name: str) -> Embedder:
    """An encoder with fresh weights, on one thread of the CPU: on two cores, the other one is left to the client."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = ConvNet() if name == "conv_net" else TimmEncoder(name, embedding_dim=128, pretrained=False)
    return Embedder(encoder, Euclidean(), ImageInput(SIDES[name]), threshold=0.5, device="cpu")


def pictures(side: int) -> list[bytes]:
    """JPEG files of N smooth pictures, twice as wide as the encoder's input."""
    chance = np.random.default_rng(0)
    found = []
    for _ in range(N):
        noise = Image.fromarray(chance.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        file = io.BytesIO()
        noise.resize((2 * side, 2 * side), Image.Resampling.BICUBIC).save(file, "JPEG")
        found.append(file.getvalue())
    return found


def serve(name: str, pipe: Any) -> None:
    """Serve an encoder, as ``task=serve`` does, and send the port."""
    import uvicorn

    from metric_module.serving.app import Server
    from metric_module.tasks.serve import listen

    with listen("127.0.0.1", 0) as listener:
        app = Server(model(name)).application(["127.0.0.1"])
        pipe.send(listener.getsockname()[1])
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none")).run(sockets=[listener])


@contextmanager
def server(name: str) -> Iterator[int]:
    """A server in a process, and its port."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(name, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


async def load(port: int, files: list[bytes], connections: int, seconds: float) -> list[float]:
    """Send requests over some connections for some seconds, and return the latency of each."""
    head = "POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    requests = [head.format(len(file)).encode() + file for file in files]
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def connection(first: int) -> None:
        """Send one request after another."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = first
        while (start := time.perf_counter()) < end:
            writer.write(requests[at % len(requests)])
            reply = await reader.readuntil(b"\r\n\r\n")
            if not reply.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {reply!r}")
            size = next(line for line in reply.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(size.split(b":")[1]))
            latencies.append(time.perf_counter() - start)
            at += 1
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(connections)))
    return latencies


def alone(call: Callable[[], Any], images: int, seconds: float) -> tuple[float, list[float]]:
    """Images per second, and seconds of each call."""
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return images * len(times) / (time.perf_counter() - start), times


def sides(name: str, port: int, seconds: float) -> dict[str, Callable[[], tuple[float, list[float]]]]:
    """Functions that measure one side each, by its name: images per second, and latencies in seconds."""
    files, embedder = pictures(SIDES[name]), model(name)
    inputs = torch.stack([embedder.read(file) for file in files])  # (N, 3, S, S)
    position = iter(range(10**9))

    def requests(connections: int) -> tuple[float, list[float]]:
        """Load the server."""
        start = time.perf_counter()
        latencies = asyncio.run(load(port, files, connections, seconds))
        return len(latencies) / (time.perf_counter() - start), latencies

    def one() -> torch.Tensor:
        """Embed a single image that is decoded."""
        at = next(position) % N
        return embedder.embed(inputs[at : at + 1])

    return {
        "encoder, batch 1": lambda: alone(one, 1, seconds),
        "encoder, batch 32": lambda: alone(lambda: embedder.embed(inputs[:32]), 32, seconds),
        "decoding and encoder, batch 1": lambda: alone(lambda: embedder.embed([files[next(position) % N]]), 1, seconds),
        **{f"server, {each} connections": lambda each=each: requests(each) for each in CONNECTIONS},  # type: ignore[misc]
    }


def main() -> None:
    """Measure every side, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=[*SIDES], choices=[*SIDES])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for name in given.encoders:
        with server(name) as port:
            measured: dict[str, list[tuple[float, list[float]]]] = {}
            for repeat in range(given.repeats + 1):
                for side, measure in sides(name, port, given.seconds if repeat else 0.5).items():
                    if repeat:  # the first warms up
                        measured.setdefault(side, []).append(measure())
                    else:
                        measure()
        for side, runs in measured.items():
            rate = statistics.median(each for each, _ in runs)
            middle, last = (
                1000 * statistics.median(float(np.quantile(times, share)) for _, times in runs) for share in (0.5, 0.99)
            )
            rows.append([name, side, f"{rate:,.0f}", f"{middle:.1f}", f"{last:.1f}"])
    print(markdown(["encoder", "", "images per second", "median ms", "p99 ms"], rows))


if __name__ == "__main__":
    main()
