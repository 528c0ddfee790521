"""What data modules of pairs share: batches of queries and references, evaluation of what is sought."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.relations.data import PairData, PairDataset
from datamodules.sampling.dataset import SampleDataset, Source
from datamodules.sampling.loaders import check_loading, eval_loader, next_place, place, train_loader
from datamodules.sampling.relation_sampler import PairSampler
from datamodules.sampling.splits import FRACTIONS, check_split
from metric_module.batch import Batch, PairBatch
from metric_module.errors import UserError
from metric_module.evaluation import Sought


@dataclass(eq=False, repr=False)
class PairDataModule(LightningDataModule, ABC):
    """A data module of queries and the references that belong to them; a subclass says in :meth:`load` of what.

    Training yields :class:`metric_module.PairBatch`, whose masks know every pair of the data set, and not only those
    that a batch was drawn for. Evaluation yields :class:`metric_module.Batch` of queries, then of references, whose
    labels say nothing. Nothing here draws from a global random state. On several ranks the loaders deal out the samples
    themselves, so that ``Trainer(use_distributed_sampler=False)`` is needed.

    Args:
        queries_per_batch: Over all ranks together.
        positives_per_query: How many of its positives each query brings.
        random_references: How many references come beside these, at random; None: all.
        seed: Names the order of training.
        eval_batch_size: Samples per evaluation batch on each rank.
        num_workers: Processes that load; 0 loads in the main process.
        preflight: Whether to look for bad samples before the first step.
        gather: As the module's: whether queries are compared with the references of all ranks.
        split_seed: Names the split, where the data set does not say.
        fractions: Shares of train, val and test there.

    Raises:
        UserError: A number is out of range.
    """

    queries_per_batch: int = 128
    positives_per_query: int = 1
    _: KW_ONLY
    random_references: int | None = 0
    seed: int = 0
    eval_batch_size: int = 512
    num_workers: int = 0
    preflight: bool = True
    gather: bool = True
    split_seed: int = 0
    fractions: Sequence[float] = FRACTIONS

    def __post_init__(self) -> None:
        super().__init__()
        check_loading(self.eval_batch_size, self.num_workers)
        check_split(self.split_seed, self.fractions)
        self._data: PairData | None = None
        self._next = (0, 0)

    @abstractmethod
    def load(self) -> PairData:
        """Read the data set."""

    @property
    def data(self) -> PairData:
        """The data set, read and checked when first asked for."""
        if self._data is None:
            data = self.load()
            data.check()
            self._data = data
        return self._data

    @property
    def sought(self) -> Mapping[str, Sought]:
        """What evaluation looks for, by ``val`` and ``test``."""
        return self.data.sought

    @cached_property  # asked for at every batch of evaluation
    def queries(self) -> Tensor | None:
        """Whether every sample, by id, is a query, or else a reference, bool; None if all are both."""
        samples = self.data.samples().labels
        return None if self.data.reference is None else samples < self.data.query.size

    @override
    def prepare_data(self) -> None:
        """Find, before the first step, what would spoil training or its figures, on one process of each machine.

        Raises:
            UserError: Listing all samples that cannot be used, as their source says.
        """
        if not self.preflight:
            return
        sides = [self.data.query, *([] if self.data.reference is None else [self.data.reference])]
        found = [
            line
            for side in sides
            if isinstance(side.fetch, Source)
            for line in side.fetch.problems({"all": torch.arange(side.size)})
        ]
        if found:
            raise UserError("data: " + "; ".join(found))

    @override
    def setup(self, stage: str) -> None:
        """Read the data; for training, find bad sampler arguments before the first step too."""
        self._data = self.data
        if stage == "fit" and self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise UserError("trainer.overfit_batches: Lightning would draw other batches; use limit_train_batches")
        if stage == "fit":
            self.train_sampler()

    @override
    def teardown(self, stage: str) -> None:
        """Another fit begins at the start."""
        if stage == "fit":
            self._next = (0, 0)

    def train_sampler(self) -> PairSampler:
        """The order of training on this rank."""
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
        )

    @override
    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Batches of queries, their positives, and references at random."""
        sampler = self.train_sampler()
        sampler.start_at(*self._next)
        return train_loader(PairDataset(self.data, sampler), sampler, self.num_workers, self.seed)

    @override
    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Every query of val once, then every reference."""
        return self._eval_loaders("val")

    @override
    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Every query of test once, then every reference."""
        return self._eval_loaders("test")

    @override
    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Every query of the data set once, then every reference."""
        data = self.data
        references = None if data.reference is None else torch.arange(data.reference.size) + data.query.size
        return self._loaders([torch.arange(data.query.size), *([] if references is None else [references])])

    def class_names_of(self, ids: Sequence[int]) -> list[str]:
        """What each of some samples is called: every sample is a class of its own."""
        return [self.data.name_of(id) for id in ids]

    def _eval_loaders(self, split: str) -> list[DataLoader[Batch]]:
        """One loader for each kind of samples, so that limits on batches are limits on each."""
        sought = self.data.sought[split]
        kinds = [sought.queries, sought.references]
        if self.data.reference is None:
            kinds = [torch.unique(torch.cat(kinds))]
        return self._loaders(kinds)

    def _loaders(self, kinds: Sequence[Tensor]) -> list[DataLoader[Batch]]:
        samples, where = self.data.samples(), place(self.trainer)
        return [
            eval_loader(SampleDataset(samples, ids), *where, self.eval_batch_size, self.num_workers) for ids in kinds
        ]

    @override
    def state_dict(self) -> dict[str, int]:
        """The place of the next training batch, whatever the number of processes: ``{"epoch": ..., "step": ...}``."""
        epoch, step = next_place(self.trainer)
        return {"epoch": epoch, "step": step}

    @override
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next training there."""
        self._next = (state_dict["epoch"], state_dict["step"])
