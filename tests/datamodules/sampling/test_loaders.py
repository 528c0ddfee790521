"""Tests that loader workers end with their process, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.sampling.dataset import SampleDataset, Samples
from datamodules.sampling.loaders import Loader, make_loader
from datamodules.sampling.pk_sampler import ShardedSampler
from metric_module.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import multiprocessing
import time

import torch

from datamodules.sampling.loaders import Loader, TrainLoader, make_loader
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.dataset import SampleDataset, Samples

labels = torch.arange(5).repeat_interleave(4)
ids = torch.arange(20)
samples = Samples(lambda ids: ids, labels, {"train": ids, "val": ids, "test": ids})
dataset = SampleDataset(samples, ids)
kind = %r
if kind == "train":
    loader = make_loader(TrainLoader, dataset, PKSampler(labels, 2, 2), batch_size=4, workers=2)
else:
    loader = make_loader(Loader, dataset, ShardedSampler(20), batch_size=2, workers=2)
batches = iter(loader)
next(batches)
print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
%s
"""


def ended(kind: str, last: str) -> tuple[int, list[int], str]:
    """Return exit code, workers and errors of a process that ends while it reads a loader."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (kind, last)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, [int(word) for word in done.stdout.split()], done.stderr


def is_alive(process: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "last", "code"), [("train", "raise RuntimeError('a bug')", 1), ("val", "raise SystemExit(2)", 2)]
)
def test_a_process_that_ends_with_a_loader_half_read_takes_its_workers_with_it(kind: str, last: str, code: int) -> None:
    """Workers ignore signals, so only a kill ends those that wait for work."""
    found, workers, errors = ended(kind, last)
    assert (found, len(workers)) == (code, 2), errors
    assert not any(map(is_alive, workers))
    assert errors.splitlines()[-1:] == (["RuntimeError: a bug"] if code == 1 else []), errors


@pytest.mark.integration
@pytest.mark.parametrize(("error", "left"), [("KeyboardInterrupt", 0), ("ValueError", 2)])
def test_an_interrupted_data_module_ends_the_workers_at_once(error: str, left: int) -> None:
    last = f"from datamodules.resumable import ResumableDataModule\nResumableDataModule.on_exception(None, {error}())\n"
    wait = "time.sleep(1); print(*[worker.pid for worker in multiprocessing.active_children()])"
    code, workers, errors = ended("train", last + wait)
    assert (code, len(workers)) == (0, 2 + left), errors


@pytest.mark.integration
def test_a_process_that_is_no_worker_is_left_to_end_by_itself() -> None:
    code, workers, errors = ended("val", "multiprocessing.Process(target=lambda: (time.sleep(1), print(7))).start()")
    assert (code, workers[2:]) == (0, [7]), errors
    assert not any(map(is_alive, workers[:2]))


@pytest.mark.filterwarnings("ignore:Got pickle error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's iterator, half made
def test_a_function_that_cannot_be_sent_to_a_worker() -> None:
    samples = Samples(lambda ids: ids.float(), torch.arange(8) // 2, {})
    loader = make_loader(Loader, SampleDataset(samples, torch.arange(8)), ShardedSampler(8), 4, workers=1)
    loader.multiprocessing_context = "spawn"
    expected = r"^datamodule.num_workers=1: the data cannot be sent to worker processes \(Can't pickle .*num_workers=0$"
    with pytest.raises(UserError, match=expected):
        iter(loader)
