"""Samplers of class-labelled data: P classes x K samples for training, every sample once for evaluation.

Legend: N = samples, C = classes, P = classes per batch, K = samples per class, n = samples of one class, W = processes,
T = steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Sampler
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.sampling.grouping import Labels, group_by_class, without_short
from datamodules.sampling.neighbourhoods import Neighbourhoods
from datamodules.sampling.permutation import keyed_permutation
from metric_module.distributed import check_shares
from metric_module.errors import UserError
from metric_module.keyed_random import combine

CLASS_ORDER, SAMPLE_ORDER = 1, 2
CENTRES = 5
MOST_CLASSES = 32
CHUNK = 8192


class EpochSampler(Sampler[int]):
    """Base of training samplers: keeps the next epoch and the first step of it that is not done."""

    def __init__(self) -> None:
        self.epoch = 0
        self._start = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration.

        Args:
            epoch: The epoch, from 0.

        Raises:
            UserError: The epoch is negative.
        """
        if epoch < 0:
            raise UserError(f"expected an epoch >= 0, got {epoch}")
        self.epoch = epoch

    def start_at(self, epoch: int, step: int) -> None:
        """Choose the epoch of the next iteration and skip its first steps, to resume training.

        Args:
            epoch: The epoch; iterations of other epochs start at step 0.
            step: Number of steps to skip.

        Raises:
            UserError: The epoch or the step is negative.
        """
        self.set_epoch(epoch)
        if step < 0:
            raise UserError(f"expected a step >= 0, got {step}")
        self._start = (epoch, step)

    @property
    def first_step(self) -> int:
        """First step of the next iteration."""
        return self._start[1] if self.epoch == self._start[0] else 0


class PKSampler(EpochSampler):
    r"""Sampler of batches of P classes x K samples: a flat stream of this process's sample indices, batch after batch.

    Use it as ``DataLoader(..., sampler=sampler, batch_size=sampler.batch_size, drop_last=True)``: Lightning then calls
    :meth:`set_epoch`. The samples of step s in epoch e are a pure function of (labels, seed, e, s). They do not depend
    on the number of processes or workers, or on a global random state. A batch is ordered by class.

    **An epoch** is the number of batches that draws N samples, rounded up: :math:`\lceil N / (P K) \rceil`. All classes
    are drawn equally often, so samples of small classes are drawn more often than those of large classes, and an epoch
    does not visit every sample.

    **Rounds and turns** continue across epochs. In each round of :math:`\lceil C / P \rceil` batches every class is
    drawn once, in random order; if P does not divide C, the last batch is filled with other classes of the round, with
    K random samples each. In :math:`\lceil n / K \rceil` turns of a class each of its n samples is drawn once, in
    random order; if K does not divide n, the last turn is filled with other samples of the class. Within a batch the P
    classes are distinct, and so are the K samples of a class with n >= K.

    **With neighbourhoods** the order of a round is that of :func:`datamodules.sampling.neighbourhoods.grouped`, by the
    table that is in force at its first step; the sampler asks for it when it draws the round's first batch. The samples
    of a step are then a pure function of (labels, seed, e, s, table). Everything else stays as it is.

    Args:
        labels: Class of each sample, integers ``(N,)``.
        classes_per_batch: P, over all processes together; None: the number of classes, at most 32.
        samples_per_class: K.
        seed: Seed of the random order.
        rank: Number of this process, which draws the classes ``[rank * P / W, (rank + 1) * P / W)`` of each batch.
        world_size: W, the number of processes; must divide P.
        short_classes: What to do with classes of fewer than K samples: ``repeat`` their samples within the batch as
            evenly as possible, ``drop`` them, or ``error``.
        neighbourhoods: Groups of near classes; None: random batches.

    Raises:
        UserError: An argument is out of range, or there are fewer than P classes.

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
        neighbourhoods: Neighbourhoods | None = None,
    ) -> None:
        super().__init__()
        _check_rank(rank, world_size)
        if classes_per_batch is not None:
            check_at_least("datamodule.classes_per_batch", classes_per_batch, 1)
        check_at_least("datamodule.samples_per_class", samples_per_class, 1)
        found = group_by_class(labels)
        used = without_short(found, samples_per_class, short_classes)
        if classes_per_batch is None:  # independent of the number of processes, which must not change training
            classes_per_batch = max(2, min(MOST_CLASSES, len(used.sizes)))
        check_shares("datamodule.classes_per_batch", classes_per_batch, world_size)
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        if len(used.sizes) < classes_per_batch:
            dropped = len(found.sizes) - len(used.sizes)
            note = f" ({dropped} with fewer than {samples_per_class} samples are dropped)" if dropped else ""
            raise UserError(
                f"datamodule.classes_per_batch: expected at most {len(used.sizes)}, the number of training classes"
                f"{note}, or null to use that number, got {classes_per_batch}"
            )
        self._order = torch.from_numpy(used.order)  # (N,), sample indices sorted by class
        self._starts = torch.from_numpy(used.starts)  # (C,)
        self._sizes = torch.from_numpy(used.sizes)  # (C,)
        self.batches_per_epoch = -(-int(self._sizes.sum()) // (classes_per_batch * samples_per_class))
        self.batches_per_round = -(-len(used.sizes) // classes_per_batch)
        if neighbourhoods is not None:
            neighbourhoods.check(classes_per_batch)
        self._neighbourhoods = neighbourhoods

    @property
    def batch_size(self) -> int:
        """Samples of this process in each batch: ``P * K / W``."""
        return self.classes_per_batch // self.world_size * self.samples_per_class

    def batches(self, steps: Tensor, epoch: int | None = None) -> Tensor:
        """Compute this process's sample indices at some steps, without drawing earlier steps.

        Args:
            steps: Steps of the epoch, int64 ``(T,)``; steps past its end belong to later epochs.
            epoch: The epoch; None: the epoch set last.

        Returns:
            Sample indices, int64 ``(T, P * K / W)``.
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
        """Compute the classes of this process, and for each its sweep over its samples and the turn in that sweep.

        Args:
            total: Steps since the start of training, int64 ``(T,)``.

        Returns:
            Three int64 tensors ``(T, P / W)``. A class that fills the last batch of a round gets a negative sweep.
        """
        shard = self.classes_per_batch // self.world_size
        slots = torch.arange(self.rank * shard, (self.rank + 1) * shard)  # (P / W,)
        count = len(self._sizes)
        number = (total // self.batches_per_round)[:, None]  # (T, 1), number of the round
        slots = (total % self.batches_per_round)[:, None] * self.classes_per_batch + slots  # (T, P / W)
        classes = self._classes(number, slots % count)  # (T, P / W)
        turns = -(-self._sizes[classes] // self.samples_per_class)  # (T, P / W)
        fills = slots >= count  # (T, P / W)
        return classes, torch.where(fills, -1 - number, number // turns), torch.where(fills, 0, number % turns)

    def _classes(self, number: Tensor, places: Tensor) -> Tensor:
        """Classes at places ``(T, P / W)`` of the rounds with the numbers ``(T, 1)``, int64 ``(T, P / W)``."""
        if self._neighbourhoods is None:
            return self._keyed(number, places)
        found = torch.empty_like(places)
        for one in torch.unique(number).tolist():
            rows = (number[:, 0] == one).nonzero()[:, 0]
            keyed = partial(self._keyed, torch.tensor(one), torch.arange(len(self._sizes)))
            order = self._neighbourhoods.order(one, one * self.batches_per_round, keyed, self.classes_per_batch)  # (C,)
            found[rows] = order[places[rows]]
        return found

    def _keyed(self, number: Tensor, places: Tensor) -> Tensor:
        """Classes at places of rounds in random order, int64."""
        return keyed_permutation(combine(self.seed, CLASS_ORDER, number), places, len(self._sizes))

    def some_of_each(self, number: int) -> tuple[Tensor, Tensor]:
        """Choose at most K random samples of every class, in order of the classes.

        Args:
            number: Another number chooses other samples.

        Returns:
            Sample indices, and the class of each as 0 to C - 1 in order of the labels, int64 ``(n,)``.
        """
        classes, sizes = torch.arange(len(self._sizes))[:, None], self._sizes[:, None]  # (C, 1), (C, 1)
        copies = torch.arange(self.samples_per_class)  # (K,)
        keys = combine(self.seed, CENTRES, classes, number)  # (C, 1)
        places = keyed_permutation(keys, copies % sizes, sizes) + self._starts[:, None]  # (C, K)
        exist = copies < sizes  # (C, K)
        return self._order[places[exist]].long(), classes.expand_as(exist)[exist]

    @override
    def __iter__(self) -> Iterator[int]:
        epoch, start = self.epoch, self.first_step
        while start < self.batches_per_epoch:
            end = min(start + self._at_once(epoch, start), self.batches_per_epoch)
            yield from self.batches(torch.arange(start, end), epoch).flatten().tolist()
            start = end

    def _at_once(self, epoch: int, step: int) -> int:
        """Count the batches to draw together: not beyond a round, whose neighbours are known when it begins."""
        most = max(1, CHUNK // self.batch_size)
        if self._neighbourhoods is None:
            return most
        return min(most, self.batches_per_round - (epoch * self.batches_per_epoch + step) % self.batches_per_round)

    def __len__(self) -> int:
        """Return the number of indices of a whole epoch on this process."""
        return self.batches_per_epoch * self.batch_size


class ShardedSampler(Sampler[int]):
    """Sampler of every sample once, in order, sharded over the processes.

    All processes get the same number: the last ones repeat the first samples, which must be dropped by id.

    Args:
        num_samples: N.
        rank: Number of this process, which takes the samples rank, rank + W, ...
        world_size: W, the number of processes.

    Raises:
        UserError: N is 0, or the rank is out of range.
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
        """Return the number of indices on this process, including repeated samples."""
        return len(self._indices)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise UserError(f"expected 0 <= rank < world_size, got rank={rank} and world_size={world_size}")
