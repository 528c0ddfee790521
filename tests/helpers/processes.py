"""Several processes on one machine that train together, for tests: gloo, on the CPU."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 240


def on_trainers(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """Like :func:`on_ranks`, but started as torchrun would: a Lightning Trainer makes the process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }
    return _on_processes(function, ranks, folder, arguments, environment)


def on_ranks(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)`` on every rank of a process group, and return what each gave.

    Raises:
        RuntimeError: With the stack trace of a rank that failed, or if one hangs or dies.
    """
    return _on_processes(function, ranks, folder, arguments, None)


def _on_processes(
    function: Callable[..., Any],
    ranks: int,
    folder: Path,
    arguments: tuple[Any, ...],
    environment: dict[str, str] | None,
) -> list[Any]:
    context = get_context("spawn")
    folder.mkdir(parents=True, exist_ok=True)
    tags = [f"{function.__name__}_{ranks}_{rank}" for rank in range(ranks)]
    processes = [
        context.Process(target=_call, args=(rank, ranks, folder, tags[rank], function, arguments, environment))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=_SECONDS)
        process.kill()
    failures = [path.read_text() for tag in tags if (path := folder / f"{tag}.txt").is_file()]
    missing = [tag for tag in tags if not (folder / f"{tag}.pkl").is_file()]
    if failures or missing:
        raise RuntimeError("\n".join([*failures, f"no result of {missing}"]))
    return [pickle.loads((folder / f"{tag}.pkl").read_bytes()) for tag in tags]


def _call(
    rank: int,
    ranks: int,
    folder: Path,
    tag: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    environment: dict[str, str] | None,
) -> None:
    torch.set_num_threads(1)
    if environment is None:
        meet = f"file://{folder}/meet_{function.__name__}_{ranks}"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    else:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        (folder / f"{tag}.pkl").write_bytes(pickle.dumps(function(*arguments)))
    except BaseException:
        (folder / f"{tag}.txt").write_text(traceback.format_exc())
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
