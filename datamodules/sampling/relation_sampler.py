"""Batch sampler for relations: every query once per epoch, with some of its positives and random references.

Shapes: N = training queries, B = queries in a batch, K = positives drawn for each query, G = references in a batch,
n = positives of one query in the data set, W = number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.sampling.permutation import keyed_permutation
from datamodules.sampling.pk_sampler import EpochSampler
from metric_module.distributed import check_shares
from metric_module.errors import UserError
from metric_module.keyed_random import combine
from metric_module.relations import Links, Relation

QUERY_ORDER, POSITIVE_ORDER, RANDOM_ORDER = 21, 22, 23  # one number for each use of the seed, so that they differ


class Drawn(NamedTuple):
    """Queries and references of one batch, for one process: row numbers of the data set, int64.

    Attributes:
        queries: Queries of this process, ``(B / W,)``.
        references: References of this process, distinct and ascending.
        together: References that are the columns of the batch's masks, ``(G,)``: those of all processes in order of
            rank or, without ``gather``, those of this process.
        positives: Positives that were drawn for each query of this process.
        past: Number of positives before those, in the list of each query, int64 ``(B / W,)``; None unless they are
            consecutive.
    """

    queries: Tensor
    references: Tensor
    together: Tensor
    positives: Links
    past: Tensor | None


class PairSampler(EpochSampler):
    r"""Sampler that yields batch numbers; :meth:`draw` returns the contents of a batch.

    **An epoch** is :math:`\lceil N / B \rceil` batches: every query once, in random order; the last batch is filled
    with the first queries of the epoch. With each query, K of its positives are drawn (all, if it has fewer). They are
    drawn in passes of :math:`\lceil n / K \rceil` epochs: in a pass, each of the n positives is drawn at least once, in
    random order. ``consecutive`` positives are one and the K - 1 before it in its list; a pass is n epochs then, and
    each positive is the last of them once. The references of a batch are these positives, without repetition, and
    random ones. A batch is a pure function of (seed, epoch, step). It does not depend on the number of processes or
    workers, or on a global random state.

    Args:
        anchors: Training queries, int64 ``(N,)``.
        positives: References linked to each query, at least one.
        candidates: References that may be drawn at random, int64.
        queries_per_batch: B, over all processes together.
        positives_per_query: K.
        random_references: Number of random references, over all processes together; None: all candidates.
        seed: Seed of the random order.
        rank: Number of this process.
        world_size: W, the number of processes; must divide B.
        gather: Whether a query is compared with the references of all processes, or only with those of its process.
        consecutive: Whether the positives that are drawn for a query follow each other in its list.

    Raises:
        UserError: An argument is out of range, or there are fewer than B queries.
    """

    batch_size = 1  # the sampler yields numbers, and each number stands for a whole batch

    def __init__(
        self,
        anchors: Tensor,
        positives: Relation,
        candidates: Tensor,
        queries_per_batch: int,
        positives_per_query: int = 1,
        random_references: int | None = 0,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        gather: bool = True,
        consecutive: bool = False,
    ) -> None:
        super().__init__()
        extra = len(candidates) if random_references is None else random_references
        check_at_least("datamodule.queries_per_batch", queries_per_batch, 1)
        check_at_least("datamodule.positives_per_query", positives_per_query, 1)
        check_at_least("datamodule.random_references", extra, 0)
        if extra > len(candidates):
            raise UserError(f"datamodule.random_references: expected at most {len(candidates)} references, got {extra}")
        if queries_per_batch > len(anchors):
            expected = f"at most the {len(anchors)} training queries"
            raise UserError(f"datamodule.queries_per_batch: expected {expected}, got {queries_per_batch}")
        check_shares("datamodule.queries_per_batch", queries_per_batch, world_size)
        self.anchors, self.positives, self.candidates = anchors, positives, candidates
        self.queries_per_batch, self.positives_per_query, self.extra = queries_per_batch, positives_per_query, extra
        self.seed, self.rank, self.world_size, self.gather = seed, rank, world_size, gather
        self.consecutive = consecutive
        self.batches_per_epoch = -(-len(anchors) // queries_per_batch)

    @override
    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers of the epoch's remaining batches, counted from the start of training."""
        start = self.epoch * self.batches_per_epoch
        return iter(range(start + self.first_step, start + self.batches_per_epoch))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.batches_per_epoch

    def draw(self, number: int) -> Drawn:
        """Draw this process's part of a batch.

        Args:
            number: Number of the batch since the start of training.
        """
        epoch, step = divmod(number, self.batches_per_epoch)
        size, per_process = len(self.anchors), self.queries_per_batch // self.world_size
        positions = (step * self.queries_per_batch + torch.arange(self.queries_per_batch)) % size  # (B,)
        queries = self.anchors[keyed_permutation(combine(self.seed, QUERY_ORDER, epoch), positions, size)]  # (B,)
        own = queries[self.rank * per_process : (self.rank + 1) * per_process]  # (B / W,)
        random_references = self._random(number)
        positives, past = self._turn(own, epoch)
        if not self.gather:
            random_references = random_references.tensor_split(self.world_size)[self.rank]
            references = torch.unique(torch.cat([positives.columns, random_references]))  # (G,)
            return Drawn(own, references, references, positives, past)
        brought = positives if self.world_size == 1 else self._turn(queries, epoch)[0]
        together = torch.unique(torch.cat([brought.columns, random_references]))  # (G,)
        return Drawn(own, together.tensor_split(self.world_size)[self.rank], together, positives, past)

    def _random(self, number: int) -> Tensor:
        """Draw the random references of a batch, for all processes together."""
        size = len(self.candidates)
        if self.extra == size:
            return self.candidates
        key = combine(self.seed, RANDOM_ORDER, number)
        return self.candidates[keyed_permutation(key, torch.arange(self.extra), size)]

    def _turn(self, queries: Tensor, epoch: int) -> tuple[Links, Tensor | None]:
        """Draw the positives of the queries ``(B,)`` in an epoch, and count those before them if consecutive."""
        lists = self.positives.lists(queries)
        sizes = lists.sizes[:, None]  # (B, 1)
        slots = torch.arange(self.positives_per_query)  # (K,)
        epochs_per_pass = sizes if self.consecutive else -(-sizes // self.positives_per_query)  # (B, 1)
        keys = combine(self.seed, POSITIVE_ORDER, queries[:, None], epoch // epochs_per_pass)  # (B, 1)
        if self.consecutive:
            last = keyed_permutation(keys, epoch % epochs_per_pass, sizes)  # (B, 1)
            positions = last + 1 - self.positives_per_query + slots  # (B, K)
            valid = positions >= 0  # (B, K)
        else:
            positions = (epoch % epochs_per_pass * self.positives_per_query + slots) % sizes  # (B, K)
            positions = keyed_permutation(keys, positions, sizes)  # (B, K)
            valid = slots < sizes  # (B, K), without repetition where a query has fewer than K positives
        starts = torch.cat([sizes.new_zeros(1), valid.sum(dim=1).cumsum(0)])  # (B + 1,)
        drawn = Links(starts, lists.columns[(positions + lists.starts[:-1, None])[valid]])
        return drawn, positions[:, 0].clamp(min=0) if self.consecutive else None
