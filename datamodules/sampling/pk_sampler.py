"""Which samples make up each batch: P classes x K samples for training, every sample once for evaluation.

Legend: N samples, C classes, P classes per batch, K samples per class, W ranks, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler
from typing_extensions import override

from datamodules.sampling.grouping import Labels, group_by_class, without_short
from datamodules.sampling.permutation import keyed_permutation
from metric_module.errors import UserError
from metric_module.keyed_random import combine

CLASS_ORDER, SAMPLE_ORDER = 1, 2
MOST_CLASSES = 32
CHUNK = 8192


class EpochSampler(Sampler[int]):
    """The part of a training sampler that knows its place: which epoch comes next, and which of its steps are done."""

    def __init__(self) -> None:
        self.epoch = 0
        self._start = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws.

        Raises:
            UserError: The epoch is negative.
        """
        if epoch < 0:
            raise UserError(f"expected an epoch >= 0, got {epoch}")
        self.epoch = epoch

    def start_at(self, epoch: int, step: int) -> None:
        """Choose the epoch that the next iteration draws, and leave out its first steps, as after a resume.

        Args:
            epoch: The epoch; iterations of others are whole.
            step: Steps of it that are done.

        Raises:
            UserError: The epoch or the step is negative.
        """
        self.set_epoch(epoch)
        if step < 0:
            raise UserError(f"expected a step >= 0, got {step}")
        self._start = (epoch, step)

    @property
    def first_step(self) -> int:
        """The first step of the next iteration."""
        return self._start[1] if self.epoch == self._start[0] else 0


class PKSampler(EpochSampler):
    r"""Batches of P classes x K samples, as a flat stream of sample indices of this rank, batch after batch.

    Use it as ``DataLoader(..., sampler=sampler, batch_size=sampler.batch_size, drop_last=True)``: Lightning then calls
    :meth:`set_epoch`. Which samples make up step s of epoch e is a pure function of (labels, seed, e, s): not of the
    number of ranks or workers, nor of any global random state. A batch is ordered class by class.

    **An epoch** is as many batches as it takes to draw as many samples as there are, rounded up:
    :math:`\lceil N / (P K) \rceil`. Classes are drawn equally often, whatever their size, so samples of small classes
    are drawn more often than those of large ones, and an epoch does not visit every sample.

    **Turns** do not start afresh with an epoch. In each *round* of :math:`\lceil C / P \rceil` batches every class has
    its turn, in random order; if P does not divide C the last batch is filled with other classes of the round, K random
    samples each. Over :math:`\lceil n / K \rceil` turns of a class every one of its n samples is drawn, in random
    order; if K does not divide n the last turn is filled with other samples of the class. Within a batch the P classes
    are distinct, and so are the K samples of a class that has that many.

    Args:
        labels: Class of each sample, integers ``(N,)``.
        classes_per_batch: P, over all ranks together; None: as many as there are, up to 32.
        samples_per_class: K.
        seed: Names the random order.
        rank: This process; it takes the classes ``[rank * P / W, (rank + 1) * P / W)`` of each batch.
        world_size: W, the number of processes; must divide P.
        short_classes: What to do with classes of fewer than K samples: ``repeat`` their samples within the batch as
            evenly as possible, ``drop`` them, or ``error``.

    Raises:
        UserError: An argument is out of range, or there are fewer than P classes to draw from.

    Example:
        >>> sampler = PKSampler([0, 0, 1, 1, 2, 2], classes_per_batch=2, samples_per_class=2)
        >>> len(sampler), sampler.batch_size
        (8, 4)
        >>> torch.equal(sampler.batches(torch.tensor([1]))[0], torch.tensor(list(sampler)[4:]))
        True
    """

    def __init__(
        self,
        labels: Labels,
        classes_per_batch: int | None,
        samples_per_class: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        short_classes: str = "repeat",
    ) -> None:
        super().__init__()
        _check_counts(classes_per_batch, samples_per_class, rank, world_size)
        found = group_by_class(labels)
        used = without_short(found, samples_per_class, short_classes)
        if classes_per_batch is None:  # whatever the number of ranks, which do not change what is trained
            classes_per_batch = max(2, min(MOST_CLASSES, len(used.sizes)))
        if classes_per_batch % world_size:
            told = f"{classes_per_batch} does not divide evenly among {world_size} ranks"
            raise UserError(f"datamodule.classes_per_batch: {told}")
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        if len(used.sizes) < classes_per_batch:
            dropped = len(found.sizes) - len(used.sizes)
            note = f" ({dropped} of fewer than {samples_per_class} samples are dropped)" if dropped else ""
            raise UserError(
                f"datamodule.classes_per_batch: expected at most {len(used.sizes)}, the classes to train on{note}, or "
                f"null for as many as there are, got {classes_per_batch}"
            )
        self._order = torch.from_numpy(used.order)  # (N,), sample indices sorted by class
        self._starts = torch.from_numpy(used.starts)  # (C,)
        self._sizes = torch.from_numpy(used.sizes)  # (C,)
        self.batches_per_epoch = -(-int(self._sizes.sum()) // (classes_per_batch * samples_per_class))

    @property
    def batch_size(self) -> int:
        """Samples of this rank in each batch: ``P * K / W``."""
        return self.classes_per_batch // self.world_size * self.samples_per_class

    def batches(self, steps: Tensor, epoch: int | None = None) -> Tensor:
        """Sample indices of this rank at some steps, without drawing the steps before.

        Args:
            steps: Steps of the epoch, int64 ``(T,)``; those past its end belong to the epochs after it.
            epoch: The epoch; the one that was set last if not given.

        Returns:
            Int64 ``(T, P * K / W)``.
        """
        total = (self.epoch if epoch is None else epoch) * self.batches_per_epoch + steps  # (T,)
        classes, sweep, turn = self._turns(total)  # each (T, P / W)
        sizes = self._sizes[classes][..., None]  # (T, P / W, 1)
        keys = combine(self.seed, SAMPLE_ORDER, classes, sweep)[..., None]  # (T, P / W, 1)
        copies = torch.arange(self.samples_per_class)  # (K,)
        places = (turn[..., None] * self.samples_per_class + copies) % sizes  # (T, P / W, K)
        places = keyed_permutation(keys, places, sizes) + self._starts[classes][..., None]  # (T, P / W, K)
        return self._order[places].long().flatten(1)

    def _turns(self, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classes of this rank, and which sweep over its samples, and which turn in it, each class has come to.

        Args:
            total: Steps since the start of training, int64 ``(T,)``.

        Returns:
            Three int64 tensors ``(T, P / W)``. A class that fills up a batch gets a sweep of its own, below zero.
        """
        share = self.classes_per_batch // self.world_size
        slots = torch.arange(self.rank * share, (self.rank + 1) * share)  # (P / W,)
        count = len(self._sizes)
        batches_per_round = -(-count // self.classes_per_batch)
        number = (total // batches_per_round)[:, None]  # (T, 1), of the round
        slots = (total % batches_per_round)[:, None] * self.classes_per_batch + slots  # (T, P / W)
        classes = keyed_permutation(combine(self.seed, CLASS_ORDER, number), slots % count, count)  # (T, P / W)
        turns = -(-self._sizes[classes] // self.samples_per_class)  # (T, P / W)
        fills = slots >= count  # (T, P / W)
        return classes, torch.where(fills, -1 - number, number // turns), torch.where(fills, 0, number % turns)

    @override
    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch
        step = max(1, CHUNK // self.batch_size)
        for start in range(self.first_step, self.batches_per_epoch, step):
            steps = torch.arange(start, min(start + step, self.batches_per_epoch))
            yield from self.batches(steps, epoch).flatten().tolist()

    def __len__(self) -> int:
        """Number of indices that a whole epoch yields on this rank."""
        return self.batches_per_epoch * self.batch_size


class ShardedSampler(Sampler[int]):
    """Every sample once, in order, dealt out to the ranks in turn.

    Every rank gets equally many: the last ones start again from the first sample, to be dropped by id.

    Args:
        num_samples: N.
        rank: This process, which takes the samples rank, rank + W, ...
        world_size: W, the number of processes.

    Raises:
        UserError: There are no samples, or the rank is out of range.
    """

    def __init__(self, num_samples: int, rank: int = 0, world_size: int = 1) -> None:
        if num_samples < 1:
            raise UserError(f"expected at least one sample to evaluate, got {num_samples}")
        _check_rank(rank, world_size)
        self._indices = range(rank, -(-num_samples // world_size) * world_size, world_size)
        self._num_samples = num_samples

    @override
    def __iter__(self) -> Iterator[int]:
        return (i % self._num_samples for i in self._indices)

    def __len__(self) -> int:
        """Number of indices on this rank, padding included."""
        return len(self._indices)


def _check_counts(classes_per_batch: int | None, samples_per_class: int, rank: int, world_size: int) -> None:
    for name, value in (("classes_per_batch", classes_per_batch), ("samples_per_class", samples_per_class)):
        if value is not None and value < 1:
            raise UserError(f"datamodule.{name}: expected an integer >= 1, got {value}")
    _check_rank(rank, world_size)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise UserError(f"expected 0 <= rank < world_size, got rank={rank} and world_size={world_size}")
