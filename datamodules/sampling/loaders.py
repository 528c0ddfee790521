"""Loaders of training and evaluation, their workers, and the position of this process and of training."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from datamodules.messages import reason_of
from datamodules.sampling.dataset import as_it_is
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.read_ahead import ReadAhead
from datamodules.sampling.relation_sampler import PairSampler
from metric_module.batch import Batch, PairBatch
from metric_module.errors import UserError

_workers: set[BaseProcess] = set()
"""Running workers of this process's loaders."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.clear)  # they are not children of a forked process


class Loader(DataLoader[Any]):
    """Loader whose workers end with this process, also if it ends by an exception while they wait.

    Workers ignore signals, so they would not react to the one with which Python terminates children at exit.
    """

    @property
    @override
    def _index_sampler(self) -> Any:
        """Batches of positions; if the data set reads ahead, with those of a later batch. Torch's iterators ask for it.

        A ``batch_sampler`` of another class would be refused by Lightning where it predicts.
        """
        batches = super()._index_sampler
        return ReadAhead(batches, self.num_workers) if getattr(self.dataset, "reads_ahead", False) else batches

    @override
    def __iter__(self) -> Any:
        """Iterate over the batches, and keep track of the workers."""
        before = set(active_children())
        try:
            iterator = super().__iter__()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if not self.num_workers or "pickle" not in str(error):
                raise
            raise UserError(
                f"datamodule.num_workers={self.num_workers}: the data cannot be sent to worker processes "
                f"({reason_of(error)}): define its functions at the top of a module, or give datamodule.num_workers=0"
            ) from None
        now = set(active_children())
        _workers.intersection_update(now)
        _workers.update(now - before)
        atexit.unregister(end_workers)
        atexit.register(end_workers)  # the last to be registered is the first to run
        return iterator


class TrainLoader(Loader):
    """Loader that can resume within an epoch; :class:`datamodules.resumable.ResumableDataModule` keeps the position.

    Lightning warns about a loader without these two methods. It may ask for the loader before it has read a checkpoint,
    so the position cannot be kept here.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the state, which is empty."""


def make_loader(
    kind: type[Loader],
    dataset: Dataset[Batch] | Dataset[PairBatch],
    sampler: PKSampler | PairSampler | ShardedSampler,
    batch_size: int,
    workers: int,
    seed: int = 0,
) -> DataLoader[Any]:
    """Make a loader of whole batches in a sampler's order.

    Args:
        kind: :class:`TrainLoader` or :class:`Loader`.
        dataset: Data set that returns a whole batch at a time.
        sampler: Positions in the data set; all but :class:`ShardedSampler` yield complete batches only.
        batch_size: Positions in a batch of this process.
        workers: Worker processes; 0 loads in the main process.
        seed: Seed of what the loader and its workers draw themselves.
    """
    return kind(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=not isinstance(sampler, ShardedSampler),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=as_it_is,
        worker_init_fn=_ignore_signals,
        # Without its own generator, each new iterator would draw from the global random state.
        generator=torch.Generator().manual_seed(seed),
    )


def place(trainer: Trainer | None) -> tuple[int, int]:
    """Return rank and number of processes.

    Args:
        trainer: The trainer; None: a single process.

    Raises:
        UserError: Lightning would shard the samples a second time.
    """
    if trainer is None:
        return 0, 1
    rank, world_size = trainer.global_rank, trainer.world_size
    connector = getattr(trainer, "_accelerator_connector", None)
    if world_size > 1 and getattr(connector, "use_distributed_sampler", False):
        raise UserError(
            f"Trainer of {world_size} processes needs use_distributed_sampler=False: the data module shards the samples"
        )
    return rank, world_size


def next_place(trainer: Trainer | None) -> tuple[int, int]:
    """Return epoch and step of the next training batch, independent of the number of processes.

    Args:
        trainer: The trainer; None: training has not begun.
    """
    if trainer is None:
        return 0, 0
    epoch, step = trainer.current_epoch, trainer.fit_loop.batch_idx + 1
    if step >= trainer.num_training_batches:  # at the end of an epoch, also of the last one
        started = trainer.fit_loop.epoch_progress.current.started  # type: ignore[attr-defined]
        epoch, step = started, 0
    return epoch, step


def _ignore_signals(worker: int) -> None:
    """Let the training process alone react to a signal sent to a whole process group; workers end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the workers that still run: they hold no state."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise torch would report killed workers as an error
    for worker in _workers.intersection(active_children()):
        worker.kill()
