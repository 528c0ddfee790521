"""What the data modules share: P x K training batches, evaluation in order, augmentation by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.augmentation.pixels import AugmentFunction
from datamodules.sampling.dataset import SampleDataset, Samples, Source, copy_numbers, listed
from datamodules.sampling.loaders import check_loading, eval_loader, next_place, place, train_loader
from datamodules.sampling.pk_sampler import PKSampler
from datamodules.sampling.splits import FRACTIONS, check_split, fold_samples
from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.keyed_random import combine

AUGMENTATION = 3


@dataclass(eq=False, repr=False)
class PKDataModule(LightningDataModule, ABC):
    """A data module that trains on batches of P classes x K samples; a subclass says in :meth:`load` of what.

    Loaders yield :class:`metric_module.Batch`. Nothing here draws from a global random state, and nothing depends on
    the number of workers. On several ranks the loaders deal out the samples themselves, so that
    ``Trainer(use_distributed_sampler=False)`` is needed.

    It is a dataclass, and so is a subclass with arguments of its own: it names those alone, and gets these as well.

    Args:
        classes_per_batch: P, over all ranks together; None: as many as there are, up to 32.
        samples_per_class: K.
        seed: Names the order of training and the draws of augmentation.
        eval_batch_size: Samples per evaluation batch on each rank.
        num_workers: Processes that load; 0 loads in the main process.
        augment: Maps inputs and one int64 key per sample to inputs, on the device, while training; None leaves them.
        short_classes: What to do with classes of fewer than K samples: ``repeat``, ``drop`` or ``error``.
        preflight: Whether to look for bad samples before the first step, once on each machine: see
            :meth:`prepare_data`.
        on_bad_sample: What a sample that cannot be read leads to while training: ``error``, or ``replace``, see
            :class:`datamodules.SampleDataset`. In evaluation it is always an error.
        split_seed: Names the split of the classes, and of the folds.
        fractions: Shares of the classes for train, val and test, where the data set does not say.
        fold: Which fold of the classes of train and val is val, see :func:`datamodules.fold_samples`; None: as loaded.
        folds: How many folds there are.

    Raises:
        UserError: A number is out of range.
    """

    classes_per_batch: int | None = 32
    samples_per_class: int = 4
    _: KW_ONLY
    seed: int = 0
    eval_batch_size: int = 512
    num_workers: int = 0
    augment: AugmentFunction | None = None
    short_classes: str = "repeat"
    preflight: bool = True
    on_bad_sample: str = "error"
    split_seed: int = 0
    fractions: Sequence[float] = FRACTIONS
    fold: int | None = None
    folds: int = 4

    def __post_init__(self) -> None:
        super().__init__()
        check_loading(self.eval_batch_size, self.num_workers)
        check_split(self.split_seed, self.fractions)
        if self.on_bad_sample not in {"error", "replace"}:
            raise UserError(f"datamodule.on_bad_sample: expected error or replace, got {self.on_bad_sample!r}")
        self._samples: Samples | None = None
        self._next = (0, 0)
        self._train_set: SampleDataset | None = None

    @property
    def replaced(self) -> int:
        """How many training samples could not be read, and were replaced."""
        return 0 if self._train_set is None else self._train_set.replaced

    @override
    def teardown(self, stage: str) -> None:
        """Say how many samples were replaced; another fit begins at the start."""
        if stage == "fit":
            self._next = (0, 0)
        if stage == "fit" and self.replaced:
            rank_zero_warn(f"data: {self.replaced} samples cannot be read, and others of their class took their place")

    @abstractmethod
    def load(self) -> Samples:
        """Read the data set."""

    @property
    def samples(self) -> Samples:
        """The data set, read and checked when first asked for."""
        if self._samples is None:
            samples = self.load()
            samples.check()
            if self.fold is not None:
                samples = samples._replace(splits=self._fold(samples, self.fold))
            self._samples = samples
        return self._samples

    def _fold(self, samples: Samples, fold: int) -> dict[str, Tensor]:
        names, seed = samples.class_names, self.split_seed
        return fold_samples(samples.splits, samples.labels, names, fold=fold, folds=self.folds, seed=seed)

    @property
    def groups(self) -> Tensor | None:
        """Group of every sample by id, int64 ``(N,)``, for retrieval across groups; None if there are none."""
        return self.samples.groups

    @property
    def queries(self) -> Tensor | None:
        """Whether every sample, by id, is a query or else of the gallery, bool ``(N,)``; None if all are both."""
        return self.samples.queries

    @property
    def pairs(self) -> Tensor | None:
        """Pairs of ids that verification looks at, int64 ``(P, 2)``; None if it looks at all."""
        return None if self.samples.listed is None else self.samples.listed.pairs

    @property
    def pair_folds(self) -> Tensor | None:
        """Which fold each pair is of, int64 ``(P,)``; None where there is a single one."""
        folds = None if self.samples.listed is None else self.samples.listed.folds
        return None if folds is None or not folds.any() else folds

    def class_names_of(self, ids: Sequence[int]) -> list[str]:
        """The class of each of some samples, in words."""
        labels = self.samples.labels[torch.tensor(list(ids), dtype=torch.int64)].tolist()
        return [self.samples.class_name(label) for label in labels]

    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """What a person sees of some samples, for the report: a picture or a text of each.

        Args:
            ids: Of the samples.

        Returns:
            As many, in the same order: what the source of the samples shows, else class and id.
        """
        if isinstance(self.samples.fetch, Source):
            return self.samples.fetch.show(ids)
        return [f"{name}, sample {id}" for name, id in zip(self.class_names_of(ids), ids, strict=True)]

    def classes_trained_on(self, split: str) -> int:
        """How many classes of a split are in the training split too; 0 where the classes themselves are split."""
        labels, splits = self.samples.labels, self.samples.splits
        return int(torch.isin(torch.unique(labels[splits[split]]), torch.unique(labels[splits["train"]])).sum())

    @override
    def prepare_data(self) -> None:
        """Find, before the first step, what would spoil training or its figures, on one process of each machine.

        Raises:
            UserError: Listing all samples that cannot be used, as their source says, and the classes of the training
                split with a single sample.
        """
        if not self.preflight:
            return
        samples, splits = self.samples, dict(self.samples.splits)
        count = samples.labels[splits["train"]].bincount()  # (C,)
        if self.short_classes == "drop":
            splits["train"] = splits["train"][count[samples.labels[splits["train"]]] > 1]
            count[count == 1] = 0
        single = [samples.class_name(label) for label in (count == 1).nonzero()[:, 0].tolist()]
        found = [
            *(samples.fetch.problems(splits) if isinstance(samples.fetch, Source) else []),
            *listed("training classes of a single sample (short_classes=drop leaves them out)", single),
        ]
        if found:
            raise UserError("data: " + "; ".join(found))

    @override
    def setup(self, stage: str) -> None:
        """Read the data; for training, find bad sampler arguments before the first step too."""
        self._samples = self.samples
        if stage == "fit" and self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise UserError(
                "trainer.overfit_batches: Lightning would draw other batches than P x K; use limit_train_batches"
            )
        if stage == "fit":
            sampler = self.train_sampler()
            if self.classes_per_batch is None:
                shape = f"{sampler.classes_per_batch} classes x {self.samples_per_class} samples"
                rank_zero_info(f"datamodule.classes_per_batch: batches of {shape}, by the classes of train")

    @property
    def drawn_by(self) -> Tensor:
        """What a training batch has P of: the class of each sample, int64 ``(N,)``."""
        return self.samples.labels

    def train_sampler(self) -> PKSampler:
        """The order of training on this rank, as positions in the training split."""
        rank, world_size = place(self.trainer)
        return PKSampler(
            self.drawn_by[self.samples.splits["train"]],
            self.classes_per_batch,
            self.samples_per_class,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            short_classes=self.short_classes,
        )

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of P classes x K samples."""
        sampler = self.train_sampler()
        sampler.start_at(*self._next)
        replace = self.on_bad_sample == "replace"
        self._train_set = SampleDataset(self.samples, self.samples.splits["train"], replace)
        return train_loader(self._train_set, sampler, self.num_workers, self.seed)

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation sample once, in order."""
        return self.eval_dataloader("val")

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test sample once, in order."""
        return self.eval_dataloader("test")

    @override
    def predict_dataloader(self) -> DataLoader[Batch]:
        """Every sample of every split once, by id."""
        return self.eval_dataloader("all")

    @override
    def state_dict(self) -> dict[str, int]:
        """The place of the next training batch, whatever the number of processes: ``{"epoch": ..., "step": ...}``."""
        epoch, step = next_place(self.trainer)
        return {"epoch": epoch, "step": step}

    @override
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next training there."""
        self._next = (state_dict["epoch"], state_dict["step"])

    def eval_dataloader(self, split: str) -> DataLoader[Batch]:
        """Every sample of a split once, in order, without augmentation.

        On W ranks each takes every W-th sample; all get equally many, so that up to W - 1 samples come twice: drop them
        by id.

        Args:
            split: ``train``, ``val``, ``test``, or ``all`` of them.

        Raises:
            UserError: There is no such split.
        """
        splits = self.samples.splits
        if split not in {*splits, "all"}:
            raise UserError(f"unknown split {split!r}: expected one of {', '.join([*splits, 'all'])}")
        ids = torch.cat(list(splits.values())).sort().values if split == "all" else splits[split]
        dataset = SampleDataset(self.samples, ids)
        return eval_loader(dataset, *place(self.trainer), self.eval_batch_size, self.num_workers)

    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Augment a training batch; the draws are a function of (seed, epoch, id, copy within the batch)."""
        if self.augment is None:
            return batch
        keys = combine(self.seed, AUGMENTATION, epoch, batch.index, copy_numbers(batch.index))  # (B,)
        return batch._replace(inputs=self.augment(batch.inputs, keys))

    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment on the device, while training and at no other time."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.augment_batch(batch, self.trainer.current_epoch)
