"""Loaders of training and evaluation, and which part of the samples is this process's."""

from __future__ import annotations

import atexit
import os
import signal
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from datamodules.sampling.dataset import SampleDataset, as_it_is
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.relation_sampler import PairSampler
from metric_module.batch import Batch, PairBatch
from metric_module.errors import UserError

_workers: set[BaseProcess] = set()
"""Those of this process's loaders."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.clear)  # a child has none of them


class Loader(DataLoader[Any]):
    """A loader whose workers end with this process, also if it ends by an exception that keeps them waiting.

    They leave signals alone, and would not answer the one with which Python ends children before it waits for them.
    """

    @override
    def __iter__(self) -> Any:
        """An iterator over the batches."""
        before = set(active_children())
        iterator = super().__iter__()
        now = set(active_children())
        _workers.intersection_update(now)
        _workers.update(now - before)
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)  # the last to be registered is the first to run
        return iterator


class TrainLoader(Loader):
    """A loader that can continue within an epoch: :class:`datamodules.base.PKDataModule` keeps its place.

    Lightning looks for the two methods of such a loader, and warns without them. It may ask for the loader before it
    has read a checkpoint, so the place is not kept here.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def check_loading(eval_batch_size: int, workers: int) -> None:
    """Accept what loaders are made with.

    Raises:
        UserError: A number is out of range.
    """
    if eval_batch_size < 1:
        raise UserError(f"datamodule.eval_batch_size: expected an integer >= 1, got {eval_batch_size}")
    if workers < 0:
        raise UserError(f"datamodule.num_workers: expected an integer >= 0, got {workers}")


def train_loader(
    dataset: Dataset[Batch] | Dataset[PairBatch], sampler: PKSampler | PairSampler, workers: int, seed: int
) -> DataLoader[Any]:
    """Batches of a sampler, in its order.

    Args:
        dataset: Gives a whole batch at a time.
        sampler: Positions in it, and how many make a batch.
        workers: Processes that load.
        seed: Of what loader and workers draw themselves.
    """
    return _loader(TrainLoader, dataset, sampler, sampler.batch_size, workers, seed)


def eval_loader(dataset: SampleDataset, rank: int, world_size: int, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Every sample once, in order, dealt out over the ranks.

    Args:
        dataset: Gives a whole batch at a time.
        rank: Of this process.
        world_size: How many ranks there are.
        batch_size: Samples of a batch on each rank.
        workers: Processes that load.
    """
    return _loader(Loader, dataset, ShardedSampler(len(dataset), rank, world_size), batch_size, workers, 0)


def place(trainer: Trainer | None) -> tuple[int, int]:
    """Rank and number of ranks.

    Raises:
        UserError: Lightning would deal out the samples a second time.
    """
    if trainer is None:
        return 0, 1
    rank, world_size = trainer.global_rank, trainer.world_size
    connector = getattr(trainer, "_accelerator_connector", None)
    if world_size > 1 and getattr(connector, "use_distributed_sampler", False):
        raise UserError(f"Trainer of {world_size} ranks needs use_distributed_sampler=False: the data module does it")
    return rank, world_size


def next_place(trainer: Trainer | None) -> tuple[int, int]:
    """Epoch and step of the next training batch, whatever the number of processes."""
    if trainer is None:
        return 0, 0
    epoch, step = trainer.current_epoch, trainer.fit_loop.batch_idx + 1
    if step >= trainer.num_training_batches:  # also at the end of an epoch, and after the last
        started = trainer.fit_loop.epoch_progress.current.started  # type: ignore[attr-defined]
        epoch, step = started, 0
    return epoch, step


def _loader(
    kind: type[Loader],
    dataset: Dataset[Batch] | Dataset[PairBatch],
    sampler: PKSampler | PairSampler | ShardedSampler,
    batch_size: int,
    workers: int,
    seed: int,
) -> DataLoader[Any]:
    return kind(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=not isinstance(sampler, ShardedSampler),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=as_it_is,
        worker_init_fn=_leave_signals_alone,
        # Without one of its own, each new iterator would draw from the global random state.
        generator=torch.Generator().manual_seed(seed),
    )


def _leave_signals_alone(worker: int) -> None:
    """A signal to all processes of a terminal or a queue is for training to answer; loaders end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End the workers that are left, of which none has anything to lose."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or torch would report that a worker was killed
    for worker in _workers.intersection(active_children()):
        worker.kill()
