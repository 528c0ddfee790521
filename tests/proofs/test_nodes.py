"""Two nodes of torchrun, and processes that die: ``pytest -m slow tests/proofs/test_nodes.py``.

Each node is a network namespace, with a virtual cable between them; that needs Linux, root and ``ip`` of iproute2.
Elsewhere both nodes are on 127.0.0.1. With ``-rP`` it prints how long the processes take to end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from metric_module.storage.checkpoints import load_checkpoint
from tests.helpers.command_line import MY_ENCODERS
from tests.helpers.network import Node, two_nodes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WITHIN = 30
"""Seconds in which docs/scale.md says that the other processes end."""

LOST = "error: another process of this run has ended or cannot be reached"
WORDS = (
    "encoder=custom",
    "encoder._target_=my_encoders.Tiny",
    "optimizer=sgd",
    "logger=csv",
    "datamodule.classes_per_batch=8",
    "trainer=ddp_cpu",
    "trainer.max_steps=12",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_steps=1",
    "test=false",
)
NODES = ("trainer.devices=1", "trainer.num_nodes=2")


class Ended(NamedTuple):
    """End of a program: code, output, and when it was."""

    code: int
    said: str
    time: float


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    with two_nodes() as found:
        yield found


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def on_nodes(nodes: tuple[Node, Node], folders: tuple[Path, Path], *words: str) -> list[Ended]:
    """Run the program on both nodes, each from its folder, and wait for both ends."""
    started = []
    for number, (node, folder) in enumerate(zip(nodes, folders, strict=True)):
        folder.mkdir(exist_ok=True)
        (folder / "my_encoders.py").write_text(MY_ENCODERS)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={nodes[0].address}:29517", f"--local-addr={node.address}"]
        host = [f"--rdzv-conf=is_host={int(number == 0)}"]
        command = [*node.prefix, *torchrun, *meet, *host, str(ROOT / "run.py"), *WORDS, *NODES, *words]
        started.append(start(folder, command, f"node{number}", GLOO_SOCKET_IFNAME=node.device))
    return wait(started)


def start(folder: Path, command: list[str], name: str, **more: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=folder, env=environment(**more), stdout=file, stderr=file), log


def wait(started: list[tuple[subprocess.Popen[bytes], Path]], limit: float = 400) -> list[Ended]:
    """Wait for all, and kill what is left at the limit."""
    ended: dict[int, Ended] = {}
    end = time.time() + limit
    while len(ended) < len(started):
        for number, (process, log) in enumerate(started):
            if number not in ended and (process.poll() is not None or time.time() > end):
                process.kill()
                ended[number] = Ended(process.wait(), log.read_text(errors="replace"), time.time())
        time.sleep(0.05)
    return [ended[number] for number in range(len(started))]


def on_one_node(folder: Path, *words: str) -> Ended:
    folder.mkdir(exist_ok=True)
    (folder / "my_encoders.py").write_text(MY_ENCODERS)
    command = [sys.executable, str(ROOT / "run.py"), *WORDS, *words]
    return wait([start(folder, command, "one")])[0]


def same(one: Path, other: Path) -> None:
    """Weights, losses and figures agree bit for bit."""
    states = [load_checkpoint(run / "checkpoints/last.ckpt") for run in (one, other)]
    assert states[0]["global_step"] == states[1]["global_step"] == 12
    assert all(torch.equal(states[1]["state_dict"][name], value) for name, value in states[0]["state_dict"].items())
    figures = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert figures[0] == figures[1] and figures[0]["val"]["best_step"] > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes on one node."""
    folder = tmp_path_factory.mktemp("one")
    ended = on_one_node(folder, "hydra.run.dir=run")
    assert ended.code == 0, ended.said
    return folder / "run"


def soon(where: str, rank: int, run: Path, end: float) -> None:
    """Check and print the seconds from the death of a process to the end of the last."""
    seconds = end - float((run / "killed").read_text())
    print(f"{where}: {seconds:.1f} s after the death of rank {rank}, the last process ended")
    assert seconds < WITHIN


def kill(rank: int, parent: bool) -> list[str]:
    words = {"_target_": "tests.helpers.small.KillRank", "rank": rank, "step": 5, "parent": str(parent).lower()}
    return [f"+callbacks.kill.{key}={value}" for key, value in words.items()]


def test_two_nodes_are_two_processes(nodes: tuple[Node, Node], whole: Path, tmp_path: Path) -> None:
    for ended in on_nodes(nodes, (tmp_path, tmp_path), "hydra.run.dir=run"):
        assert ended.code == 0, ended.said
    same(whole, tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {"run", "__pycache__"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_dies_and_the_run_continues(nodes: tuple[Node, Node], whole: Path, rank: int, tmp_path: Path) -> None:
    words = ("hydra.run.dir=run", "ckpt_path=last")
    ended = on_nodes(nodes, (tmp_path, tmp_path), *words, *kill(rank, parent=True))
    assert all(one.code for one in ended)
    soon("two nodes", rank, tmp_path / "run", max(one.time for one in ended))
    assert sum(one.said.count(LOST) for one in ended) == 1
    for one in on_nodes(nodes, (tmp_path, tmp_path), *words):
        assert one.code == 0, one.said
    same(whole, tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_dies_and_the_run_continues(whole: Path, rank: int, tmp_path: Path) -> None:
    ended = on_one_node(tmp_path, "hydra.run.dir=run", *kill(rank, parent=False))
    other = Path(f"/proc/{(tmp_path / 'run/others').read_text()}")
    limit = time.time() + WITHIN
    while other.exists() and time.time() < limit:
        time.sleep(0.05)
    assert not other.exists()
    soon("one node", rank, tmp_path / "run", time.time())
    assert ended.code == (1 if rank else -9)
    said = (tmp_path / "one.log").read_text()
    assert said.count(LOST) == 1 and "Traceback" not in said
    ended = on_one_node(tmp_path, "resume=run", "~callbacks.kill")
    assert ended.code == 0, ended.said
    same(whole, tmp_path / "run")


def test_folders_that_are_not_one(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    ended = on_nodes(nodes, (tmp_path, tmp_path))
    told = "error: hydra.run.dir: each of 2 processes of torchrun or srun would name the folder by its own clock; "
    assert [one.code > 0 for one in ended] == [True, True] and sum(one.said.count(told) for one in ended) == 1
    folders = (tmp_path / "a", tmp_path / "b")
    for rank, one in enumerate(on_nodes(nodes, folders, "hydra.run.dir=run")):
        assert one.code > 0, one.said
        assert "error: hydra.run.dir: rank 1 does not see " in one.said
        left = {path.name for path in folders[rank].glob("run/*")}
        assert left <= ({"run.log"} if rank else set()), "each process has a log"
