"""What the data modules share: P x K training batches, evaluation in order, augmentation by key."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.augment import AugmentFunction
from datamodules.loaders import TrainLoader
from datamodules.samplers import PKSampler, ShardedSampler
from datamodules.samples import SampleDataset, Samples, as_it_is, copy_numbers
from datamodules.splits import fold_samples
from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.random import combine

AUGMENTATION = 3


class PKDataModule(LightningDataModule, ABC):
    """A data module that trains on batches of P classes x K samples; a subclass says in :meth:`load` of what.

    Loaders yield :class:`metric_module.Batch`. Nothing here draws from a global random state, and nothing depends on
    the number of workers. On several ranks the loaders deal out the samples themselves, so that
    ``Trainer(use_distributed_sampler=False)`` is needed.

    Args:
        classes_per_batch: P, over all ranks together.
        samples_per_class: K.
        seed: Names the order of training and the draws of augmentation.
        eval_batch_size: Samples per evaluation batch on each rank.
        num_workers: Processes that load; 0 loads in the main process.
        augment: Maps inputs and one int64 key per sample to inputs, on the device, while training; None leaves them.
        short_classes: What to do with classes of fewer than K samples: ``repeat``, ``drop`` or ``error``.
        on_bad_sample: What a sample that cannot be read leads to while training: ``error``, or ``replace``, see
            :class:`datamodules.SampleDataset`. In evaluation it is always an error.
        split_seed: Names the split of the classes, and of the folds.
        fold: Which fold of the classes of train and val is val, see :func:`datamodules.fold_samples`; None: as loaded.
        folds: How many folds there are.

    Raises:
        UserError: A number is out of range.
    """

    def __init__(
        self,
        classes_per_batch: int = 32,
        samples_per_class: int = 4,
        *,
        seed: int = 0,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        augment: AugmentFunction | None = None,
        short_classes: str = "repeat",
        on_bad_sample: str = "error",
        split_seed: int = 0,
        fold: int | None = None,
        folds: int = 4,
    ) -> None:
        super().__init__()
        if eval_batch_size < 1:
            raise UserError(f"expected eval_batch_size >= 1, got {eval_batch_size}")
        if num_workers < 0:
            raise UserError(f"expected num_workers >= 0, got {num_workers}")
        if on_bad_sample not in {"error", "replace"}:
            raise UserError(f"on_bad_sample: expected error or replace, got {on_bad_sample!r}")
        self.on_bad_sample = on_bad_sample
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.short_classes = short_classes
        self.split_seed = split_seed
        self.fold = fold
        self.folds = folds
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
        """Which fold each pair is of, int64 ``(P,)``."""
        return None if self.samples.listed is None else self.samples.listed.folds

    def class_names_of(self, ids: Sequence[int]) -> list[str]:
        """The class of each of some samples, in words."""
        names = self.samples.class_names
        labels = self.samples.labels[torch.tensor(list(ids), dtype=torch.int64)].tolist()
        return [names[label] if label < len(names) else f"class {label}" for label in labels]

    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """What a person sees of some samples, for the report: a picture or a text of each.

        Args:
            ids: Of the samples.

        Returns:
            As many, in the same order. Here class and id; a subclass knows better.
        """
        return [f"{name}, sample {id}" for name, id in zip(self.class_names_of(ids), ids, strict=True)]

    def classes_trained_on(self, split: str) -> int:
        """How many classes of a split are in the training split too; 0 where the classes themselves are split."""
        labels, splits = self.samples.labels, self.samples.splits
        return len(set(labels[splits[split]].tolist()) & set(labels[splits["train"]].tolist()))

    @override
    def setup(self, stage: str) -> None:
        """Read the data; for training, find bad sampler arguments before the first step too."""
        self._samples = self.samples
        if stage == "fit" and self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise UserError(
                "trainer.overfit_batches: Lightning would draw other batches than P x K; use limit_train_batches"
            )
        if stage == "fit":
            self.train_sampler()

    def train_sampler(self) -> PKSampler:
        """The order of training on this rank, as positions in the training split."""
        rank, world_size = self._place()
        return PKSampler(
            self.samples.labels[self.samples.splits["train"]],
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
        dataset = self._train_set
        return self._loader(dataset, sampler, sampler.batch_size)

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
        if self.trainer is None:
            return {"epoch": 0, "step": 0}
        epoch, step = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1
        if step >= self.trainer.num_training_batches:  # also at the end of an epoch, and after the last
            started = self.trainer.fit_loop.epoch_progress.current.started  # type: ignore[attr-defined]
            epoch, step = started, 0
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
        splits = {**self.samples.splits, "all": torch.cat(list(self.samples.splits.values())).sort().values}
        if split not in splits:
            raise UserError(f"unknown split {split!r}: expected one of {', '.join(splits)}")
        dataset = SampleDataset(self.samples, splits[split])
        return self._loader(dataset, ShardedSampler(len(dataset), *self._place()), self.eval_batch_size)

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

    def _loader(
        self, dataset: SampleDataset, sampler: PKSampler | ShardedSampler, batch_size: int
    ) -> DataLoader[Batch]:
        kind = TrainLoader if isinstance(sampler, PKSampler) else DataLoader
        return kind(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=isinstance(sampler, PKSampler),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_it_is,
            worker_init_fn=_leave_signals_alone,
            # Without one of its own, each new iterator would draw from the global random state.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _place(self) -> tuple[int, int]:
        """Rank and number of ranks.

        Raises:
            UserError: Lightning would deal out the samples a second time.
        """
        if self.trainer is None:
            return 0, 1
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        connector = getattr(self.trainer, "_accelerator_connector", None)
        if world_size > 1 and getattr(connector, "use_distributed_sampler", False):
            raise UserError(
                f"Trainer of {world_size} ranks needs use_distributed_sampler=False: the data module does it"
            )
        return rank, world_size


def _leave_signals_alone(worker: int) -> None:
    """A signal to all processes of a terminal or a queue is for training to answer; loaders end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
