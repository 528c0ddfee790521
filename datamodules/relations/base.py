"""Base class of data modules with relations: batches of queries and references, and evaluation of their links."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.relations.data import PairData, PairDataset
from datamodules.relations.history import History
from datamodules.resumable import ResumableDataModule
from datamodules.sampling.dataset import Source, fingerprint
from datamodules.sampling.loaders import place
from datamodules.sampling.relation_sampler import PairSampler
from datamodules.sampling.splits import FRACTIONS
from metric_module.batch import Batch
from metric_module.evaluation import Sought
from metric_module.preprocessing import Preprocessing, TowersInput


@dataclass(eq=False, repr=False)
class PairDataModule(ResumableDataModule):
    """Data module of queries and the references linked to them; a subclass reads the data set in :meth:`load`.

    Training yields :class:`metric_module.PairBatch`, whose masks contain every link of the data set, not only those
    that the batch was drawn for. Evaluation yields :class:`metric_module.Batch` of queries, then of references; their
    labels carry no meaning. Nothing here draws from a global random state. With several processes the loaders shard the
    samples themselves, so ``Trainer(use_distributed_sampler=False)`` is required.

    Args:
        queries_per_batch: Queries in a batch, over all processes together.
        positives_per_query: Positives that each query brings into the batch.
        random_references: Number of random references added to these; None: all references.
        seed: Seed of the order of training.
        eval_batch_size: Samples per evaluation batch on each process.
        num_workers: Worker processes of each loader; 0 loads in the main process.
        preflight: Whether to check all samples before the first step.
        gather: Whether queries are compared with the references of all processes; must equal the module's ``gather``.
        split_seed: Seed of the split, where the data set does not define one.
        fractions: Shares of train, val and test in that split.

    Raises:
        UserError: A number is out of range.
    """

    queries_per_batch: int = 128
    positives_per_query: int = 1
    _: KW_ONLY
    seed: int = 0
    eval_batch_size: int = 512
    num_workers: int = 0
    preflight: bool = True
    split_seed: int = 0
    fractions: Sequence[float] = FRACTIONS
    random_references: int | None = 0
    gather: bool = True

    @abstractmethod
    def load(self) -> PairData:
        """Read the data set."""

    @cached_property
    def data(self) -> PairData:
        """The data set, read and checked on first use."""
        data = self.load()
        data.check()
        if self._trained_as is not None and data.reference is None and isinstance(data.query.fetch, Source):
            data.query.fetch.preprocess_as(self._trained_as)
        return data

    @cached_property
    @override
    def fingerprint(self) -> str:
        """Hash of the training queries and references, and of the positives of the first thousand queries."""
        anchors = self.data.anchors
        some = self.data.positives.lists(anchors[:1000])
        return fingerprint(anchors, self.data.candidates, some.starts, some.columns)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a single item becomes an encoder input, or that of each tower; None if no source defines it."""
        query, reference = self.data.query, self.data.reference
        sides = {side.tower: side.fetch for side in (query, reference) if side is not None}
        known = {tower: fetch.preprocessing for tower, fetch in sides.items() if isinstance(fetch, Source)}
        towers = {tower: found for tower, found in known.items() if tower is not None and found is not None}
        if reference is None:
            return known.get(query.tower)
        return TowersInput(towers) if towers else None

    @property
    def sought(self) -> Mapping[str, Sought]:
        """Queries, references and their links in evaluation, for ``val`` and ``test``."""
        return self.data.sought

    @cached_property  # read at every batch of evaluation
    def queries(self) -> Tensor | None:
        """Whether each sample, by id, is a query or else a reference, bool ``(N,)``; None if all samples are both."""
        samples = self.data.samples().labels
        return None if self.data.reference is None else samples < self.data.query.size

    @override
    def find_problems(self) -> list[str]:
        """List the queries and references that cannot be used, as their sources report them."""
        sides = [side for side in (self.data.query, self.data.reference) if side is not None]
        return [
            line
            for side in sides
            if isinstance(side.fetch, Source)
            for line in side.fetch.problems({"all": torch.arange(side.size)})
        ]

    @override
    def setup(self, stage: str) -> None:
        """Read the data; before training, check the sampler's arguments too.

        Raises:
            UserError: The data set, or an argument of the sampler, cannot be used.
        """
        super().setup(stage)
        self.data  # noqa: B018  # reads the data set here instead of in the first batch
        if stage == "fit":
            self.train_sampler()

    @override
    def train_sampler(self) -> PairSampler:
        """Make the sampler of this process's training batches."""
        rank, world_size = place(self.trainer)
        return PairSampler(
            self.data.anchors,
            self.data.positives,
            self.data.candidates,
            self.queries_per_batch,
            self.positives_per_query,
            self.random_references,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            gather=self.gather,
            consecutive=isinstance(self.data.query.fetch, History),
        )

    @override
    def train_dataset(self, sampler: Any) -> PairDataset:
        """Make the data set of training batches: queries, their positives, and random references."""
        return PairDataset(self.data, sampler)

    def class_names_of(self, ids: Sequence[int]) -> list[str]:
        """Name each sample: every sample is its own class.

        Args:
            ids: The samples.
        """
        return [self.data.name_of(id) for id in ids]

    @override
    def eval_loaders(self, split: str) -> list[DataLoader[Batch]]:
        """Load every query once, then every reference: one loader each, so that limits on batches apply to both.

        Args:
            split: ``val``, ``test``, or ``all`` samples of the data set.
        """
        data = self.data
        if split == "all":
            ids = torch.arange(len(data.samples().labels))
            kinds = [ids] if data.reference is None else [ids[: data.query.size], ids[data.query.size :]]
        else:
            kinds = [data.sought[split].queries, data.sought[split].references]
            kinds = [torch.unique(torch.cat(kinds))] if data.reference is None else kinds
        return [self.sharded_loader(data.samples(), ids) for ids in kinds]
