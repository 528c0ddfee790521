"""Two nodes of torchrun, and processes that die: ``pytest -m slow tests/proofs/test_nodes.py``.

Each node is a network namespace, with a virtual cable between them; that needs Linux, root and ``ip`` of iproute2.
Elsewhere both nodes are on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import shutil
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

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WITHIN = 30
"""Seconds in which docs/scale.md says that the other processes end."""

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


class Node(NamedTuple):
    """How a program starts on a node."""

    prefix: tuple[str, ...]
    address: str
    device: str


class Ended(NamedTuple):
    """End of a program: code, output, and when it was."""

    code: int
    said: str
    time: float


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    names = tuple(f"lt-{os.getpid()}-{letter}" for letter in "ab")
    made = [_ip("netns", "add", name) for name in names if shutil.which("ip")]
    if made != [0, 0]:
        for name in names:
            _ip("netns", "del", name)
        yield Node((), "127.0.0.1", "lo"), Node((), "127.0.0.1", "lo")
        return
    try:
        assert _ip("link", "add", "node-a", "netns", names[0], "type", "veth", "peer", "node-b", "netns", names[1]) == 0
        found = []
        for name, letter, address in zip(names, "ab", ("10.77.0.1", "10.77.0.2"), strict=True):
            assert _ip("-n", name, "addr", "add", f"{address}/24", "dev", f"node-{letter}") == 0
            assert _ip("-n", name, "link", "set", "lo", "up") == _ip("-n", name, "link", "set", f"node-{letter}", "up")
            found.append(Node(("ip", "netns", "exec", name), address, f"node-{letter}"))
        yield found[0], found[1]
    finally:
        for name in names:
            _ip("netns", "del", name)


def _ip(*words: str) -> int:
    return subprocess.run(["ip", *words], check=False, capture_output=True).returncode if shutil.which("ip") else 1


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
    killed = float((tmp_path / "run/killed").read_text())
    assert all(one.code for one in ended)
    assert max(one.time for one in ended) - killed < WITHIN
    assert sum(one.said.count("error: another process of this run has ended") for one in ended) == 1
    for one in on_nodes(nodes, (tmp_path, tmp_path), *words):
        assert one.code == 0, one.said
    same(whole, tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_dies_and_the_run_continues(whole: Path, rank: int, tmp_path: Path) -> None:
    ended = on_one_node(tmp_path, "hydra.run.dir=run", *kill(rank, parent=False))
    killed, pid = (tmp_path / "run/killed").read_text(), int((tmp_path / "run/others").read_text())
    while Path(f"/proc/{pid}").exists() and time.time() < float(killed) + WITHIN:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() and time.time() - float(killed) < WITHIN
    assert ended.code == (1 if rank else -9)
    said = (tmp_path / "one.log").read_text()
    assert said.count("error: another process of this run has ended") == 1 and "Traceback" not in said
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
        assert not (folders[rank] / "run").exists()
