"""Who is in which batch of pairs: queries in turn, some positives of each, and references at random.

Legend: N queries of training, B queries of a batch, K positives of a query, G references of a batch, W ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.sampling.permutation import keyed_permutation
from datamodules.sampling.pk_sampler import EpochSampler
from metric_module.errors import UserError
from metric_module.keyed_random import combine
from metric_module.relations import Relation

QUERY_ORDER, POSITIVE_ORDER, RANDOM_ORDER = 21, 22, 23


class Drawn(NamedTuple):
    """One rank's share of a batch, as rows of the data set, int64.

    Attributes:
        queries: Of this rank, ``(B / W,)``.
        references: Of this rank, different and ascending.
        together: Those that the masks have a column for, ``(G,)``: of all ranks in their order, or of this one.
    """

    queries: Tensor
    references: Tensor
    together: Tensor


class PairSampler(EpochSampler):
    r"""Numbers of batches, one at a time, and what is in each.

    **An epoch** is :math:`\lceil N / B \rceil` batches: every query once, in random order; the last batch is filled
    with the first ones of the epoch. A query brings K of its positives (all, if it has fewer), in turn: over
    :math:`\lceil n / K \rceil` epochs each of its n positives comes, in random order. References are these positives,
    each once whoever brought it, and others at random. All of it is a pure function of (seed, epoch, step): not of the
    number of ranks or workers, nor of any global random state.

    Args:
        anchors: The queries of training, int64 ``(N,)``.
        positives: The references that belong to each, at least one.
        candidates: References that may be drawn at random, int64.
        queries_per_batch: B, over all ranks together.
        positives_per_query: K.
        random_references: How many come beside the positives, over all ranks together; None: all candidates.
        seed: Names the random order.
        rank: This process.
        world_size: W, the number of processes; must divide B.
        gather: Whether a query is compared with the references of all ranks, or with those of its own.

    Raises:
        UserError: An argument is out of range, or there are fewer than B queries.
    """

    batch_size = 1  # of numbers: what a number stands for is a whole batch

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
    ) -> None:
        super().__init__()
        extra = len(candidates) if random_references is None else random_references
        for name, value, least in (
            ("queries_per_batch", queries_per_batch, 1),
            ("positives_per_query", positives_per_query, 1),
            ("random_references", extra, 0),
        ):
            if value < least:
                raise UserError(f"datamodule.{name}: expected an integer >= {least}, got {value}")
        if extra > len(candidates):
            raise UserError(f"datamodule.random_references: expected at most {len(candidates)} references, got {extra}")
        if queries_per_batch > len(anchors):
            told = f"expected at most the {len(anchors)} queries of train, got {queries_per_batch}"
            raise UserError(f"datamodule.queries_per_batch: {told}")
        if queries_per_batch % world_size:
            told = f"{queries_per_batch} does not divide evenly among {world_size} ranks"
            raise UserError(f"datamodule.queries_per_batch: {told}")
        self.anchors, self.positives, self.candidates = anchors, positives, candidates
        self.queries_per_batch, self.positives_per_query, self.extra = queries_per_batch, positives_per_query, extra
        self.seed, self.rank, self.world_size, self.gather = seed, rank, world_size, gather
        self.batches_per_epoch = -(-len(anchors) // queries_per_batch)

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(
            range(self.epoch * self.batches_per_epoch + self.first_step, (self.epoch + 1) * self.batches_per_epoch)
        )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.batches_per_epoch

    def draw(self, number: int) -> Drawn:
        """What is in a batch.

        Args:
            number: Of the batch since the start of training.
        """
        epoch, step = divmod(number, self.batches_per_epoch)
        size, share = len(self.anchors), self.queries_per_batch // self.world_size
        place = (step * self.queries_per_batch + torch.arange(self.queries_per_batch)) % size  # (B,)
        queries = self.anchors[keyed_permutation(combine(self.seed, QUERY_ORDER, epoch), place, size)]  # (B,)
        own = queries[self.rank * share : (self.rank + 1) * share]  # (B / W,)
        extra = self._random(number)
        if not self.gather:
            references = torch.unique(
                torch.cat([self._turn(own, epoch), extra.tensor_split(self.world_size)[self.rank]])
            )
            return Drawn(own, references, references)
        together = torch.unique(torch.cat([self._turn(queries, epoch), extra]))  # (G,)
        return Drawn(own, together.tensor_split(self.world_size)[self.rank], together)

    def _random(self, number: int) -> Tensor:
        """References that come beside the positives."""
        size = len(self.candidates)
        if self.extra == size:
            return self.candidates
        key = combine(self.seed, RANDOM_ORDER, number)
        return self.candidates[keyed_permutation(key, torch.arange(self.extra), size)]

    def _turn(self, queries: Tensor, epoch: int) -> Tensor:
        """The positives whose turn it is in an epoch, of all queries ``(B,)`` together."""
        lists = self.positives.lists(queries)
        sizes = lists.sizes[:, None]  # (B, 1)
        turns = -(-sizes // self.positives_per_query)  # (B, 1)
        copies = torch.arange(self.positives_per_query)  # (K,)
        places = (epoch % turns * self.positives_per_query + copies) % sizes  # (B, K)
        keys = combine(self.seed, POSITIVE_ORDER, queries[:, None], epoch // turns)  # (B, 1)
        places = keyed_permutation(keys, places, sizes) + lists.starts[:-1, None]  # (B, K)
        return lists.columns[places[copies < sizes]]
