"""Several processes on one machine that train together, for tests: gloo, on the CPU."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SECONDS = 240


def on_ranks(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)`` on every rank of a process group, and return what each gave.

    Raises:
        RuntimeError: With the stack trace of a rank that failed, or if one hangs or dies.
    """
    context = get_context("spawn")
    tags = [f"{function.__name__}_{ranks}_{rank}" for rank in range(ranks)]
    processes = [
        context.Process(target=_call, args=(rank, ranks, folder, tags[rank], function, arguments))
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
    rank: int, ranks: int, folder: Path, tag: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet_{function.__name__}_{ranks}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    try:
        (folder / f"{tag}.pkl").write_bytes(pickle.dumps(function(*arguments)))
    except BaseException:
        (folder / f"{tag}.txt").write_text(traceback.format_exc())
    finally:
        dist.destroy_process_group()
