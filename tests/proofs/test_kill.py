"""Long proofs with real kills: ``pytest -m slow tests/proofs``.

SIGKILL at every step of two epochs, on one process and on two, compared bit for bit with a run that was left alone;
SIGKILL at 200 random moments of a process that does nothing but save.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from metric_module.storage.checkpoints import WholeCheckpointIO, load_checkpoint, newest_checkpoint
from tests.helpers.clouds import run
from tests.helpers.processes import on_trainers

pytestmark = pytest.mark.slow
STEPS = 8
TWO: dict[str, Any] = {"devices": 2, "strategy": "ddp"}
NEIGHBOURS: list[dict[str, Any] | None] = [None, {"group": 2, "every": 3}]  # tables of step 0, 3 and 6
CODE = """
import json
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.proofs.test_kill import Kill
from tests.helpers.clouds import run
path = Path(sys.argv[2]) / "checkpoints/last.ckpt"
start = str(path) if path.exists() else None
run(Path(sys.argv[2]), Kill(int(sys.argv[3])), ckpt_path=start, neighbours=json.loads(sys.argv[4]))
"""
ROOT = str(Path(__file__).resolve().parents[2])


class Kill(Callback):
    """Ends this process as the system would: no handler, no clean-up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def finish(folder: Path, step: int | None, neighbours: dict[str, Any] | None) -> dict[str, torch.Tensor]:
    """Train on this rank, killed at a step or to the end; the weights."""
    path = folder / "checkpoints/last.ckpt"
    callbacks = [] if step is None else [Kill(step)]
    start = str(path) if path.exists() else None
    module, _ = run(folder, *callbacks, ckpt_path=start, trainer_settings=TWO, neighbours=neighbours)
    return module.state_dict()


def kill(folder: Path, step: int, neighbours: dict[str, Any] | None) -> None:
    """Train in another process, from its last checkpoint, until it kills itself at a step."""
    words = [ROOT, str(folder), str(step), json.dumps(neighbours)]
    ended = subprocess.run([sys.executable, "-c", CODE, *words], check=False)
    assert ended.returncode == -signal.SIGKILL


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("step", range(STEPS))
def test_one_process_killed_at_every_step(step: int, neighbours: dict[str, Any] | None, tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", neighbours=neighbours)
    kill(tmp_path, step, neighbours)
    path = tmp_path / "checkpoints/last.ckpt"
    rest, _ = run(tmp_path, ckpt_path=str(path) if path.exists() else None, neighbours=neighbours)
    assert same(rest.state_dict(), whole.state_dict())


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_one_process_killed_at_every_step_of_one_run(neighbours: dict[str, Any] | None, tmp_path: Path) -> None:
    whole, record = run(tmp_path / "whole", neighbours=neighbours)
    for step in range(1, STEPS):
        kill(tmp_path, step, neighbours)
    rest, _ = run(tmp_path, ckpt_path=str(tmp_path / "checkpoints/last.ckpt"), neighbours=neighbours)
    assert same(rest.state_dict(), whole.state_dict())
    assert neighbours is None or record.ids != run(tmp_path / "plain")[1].ids


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_two_processes_killed_at_every_step(neighbours: dict[str, Any] | None, tmp_path: Path) -> None:
    whole = on_trainers(finish, 2, tmp_path / "w", tmp_path / "whole", None, neighbours)
    for step in range(1, STEPS):
        with pytest.raises(RuntimeError, match="no result of"):
            on_trainers(finish, 2, tmp_path / f"k{step}", tmp_path / "run", step, neighbours)
    rest = on_trainers(finish, 2, tmp_path / "r", tmp_path / "run", None, neighbours)
    for one, other in zip(rest, whole, strict=True):
        assert same(one, other)


def save_forever(path: Path, number: int) -> None:
    """Write ever newer checkpoints over each other."""
    while True:
        number += 1
        WholeCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((300_000,), float(number))}}, path)


def test_killed_200_times_while_saving(tmp_path: Path) -> None:
    path, number, torn = tmp_path / "last.ckpt", 0, 0
    chance = random.Random(0)
    for _ in range(200):
        process = get_context("fork").Process(target=save_forever, args=(path, number))
        process.start()
        time.sleep(chance.uniform(0.01, 0.1))
        process.kill()
        process.join()
        if path.exists():
            assert newest_checkpoint(tmp_path) == path
            weight = load_checkpoint(path)["state_dict"]["weight"]
            assert weight.eq(weight[0]).all()
            assert weight[0] >= number, "never an older one"
            number = int(weight[0])
        left = list(tmp_path.glob(".last.ckpt.*"))
        torn += len(left)
        for part in left:
            part.unlink()
    assert number > 200
    assert torn > 20, "many kills hit a save"
