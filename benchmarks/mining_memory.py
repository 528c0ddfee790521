"""Extra memory of the sides of ``benchmarks.mining``, each in a fresh process.

Counted from the moment when libraries, threads and inputs are in place. Linux only.

Shapes: B = batch, D = embedding size.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.mining_cases import Inputs, Work, inputs
from benchmarks.mining_sides import Run, UnavailableError, build

_WARMUP_BATCH = 64


class Settings(NamedTuple):
    """Settings of a measurement: rounds, threads, and gigabytes that a side may take beyond its inputs."""

    repeats: int = 15
    threads: int = 2
    memory_limit: float = 8.0


class Footprint(NamedTuple):
    """One call: peak memory beyond what was there before it, seconds, loss, and norm of the gradient."""

    megabytes: float
    seconds: float
    loss: float
    slope: float


def call(run: Run, data: Inputs) -> Footprint:
    """Forward and backward once, as a footprint without megabytes."""
    embeddings = data.embeddings.detach().requires_grad_()  # (B, D)
    start = time.perf_counter()
    loss = run(embeddings, data.labels)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    slope = math.nan if embeddings.grad is None else float(embeddings.grad.norm())
    return Footprint(math.nan, seconds, loss.item(), slope)


def footprint(work: Work, side: str, settings: Settings) -> Footprint | str:
    """One call in a fresh process; a note if the side cannot do it, or not within the memory limit."""
    try:
        build(side, work)
    except UnavailableError as reason:
        return str(reason)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_footprint, work, side, settings).result()
        except (MemoryError, BrokenProcessPool):
            return f"needs over {settings.memory_limit:g} GB"


def _footprint(work: Work, side: str, settings: Settings) -> Footprint:
    """Runs in the fresh process: warm up on a tiny batch, then measure."""
    torch.set_num_threads(settings.threads)
    tiny = replace(work, batch=_WARMUP_BATCH)
    square = torch.rand(512, 512)
    for _ in range(2):
        call(build(side, tiny), inputs(tiny))
        square @ square
    data, run = inputs(work), build(side, work)
    megabytes = restart_peak()
    used = kilobytes("VmSize")
    limit = int(used * 1024 + settings.memory_limit * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        found = call(run, data)
    except RuntimeError as error:
        if "memory" in str(error):
            raise MemoryError(str(error)) from None
        raise
    return found._replace(megabytes=megabytes())


def restart_peak() -> Callable[[], float]:
    """Give back free memory, and return what reads the peak from now on, in megabytes beyond what is in use now."""
    give_back_free_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    return lambda: (kilobytes("VmHWM") - before) / 1024


def give_back_free_memory() -> None:
    """Let what earlier calls have freed not hide what the next one takes."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def kilobytes(name: str) -> int:
    """A size from ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
