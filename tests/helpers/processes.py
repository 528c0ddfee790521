"""Several processes on one machine that train together, for tests: gloo, on the CPU.

They are forked from a server that has imported the large packages, which takes longer than most tests do. The server
imports nothing of the project: started from another folder, it would find another copy.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 240
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lightning.pytorch", "torchvision", "timm", "pytest", "hypothesis"])


def on_trainers(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """Call a function on every rank like :func:`on_ranks`, but let a Lightning Trainer make the process group.

    Each process has the environment variables that torchrun would set.
    """
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
    """Call ``function(*arguments)`` on every rank of a process group, and return the results by rank.

    Raises:
        RuntimeError: With the stack trace of a rank that failed, or if one hangs or dies.
    """
    return _on_processes(function, ranks, folder, arguments, {})


def _on_processes(
    function: Callable[..., Any],
    ranks: int,
    folder: Path,
    arguments: tuple[Any, ...],
    environment: dict[str, str],
) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    tags = [f"{function.__name__}_{ranks}_{rank}" for rank in range(ranks)]
    variables = {**os.environ, **environment}
    processes = [
        CONTEXT.Process(target=_call, args=(rank, ranks, folder, tags[rank], function, arguments, variables))
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


def become_independent(environment: Mapping[str, str]) -> None:
    """Drop what a forked process has from the server: its environment variables, and how it starts processes."""
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)


def _call(
    rank: int,
    ranks: int,
    folder: Path,
    tag: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
) -> None:
    become_independent(environment)
    torch.set_num_threads(1)
    if "TORCHELASTIC_RUN_ID" not in environment:
        meet = f"file://{folder}/meet_{function.__name__}_{ranks}"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    else:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        (folder / f"{tag}.pkl").write_bytes(pickle.dumps(function(*arguments)))
    except BaseException:
        (folder / f"{tag}.txt").write_text(traceback.format_exc())
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
