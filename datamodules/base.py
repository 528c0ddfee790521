"""Base class of data modules with class labels: P x K training batches, ordered evaluation, keyed augmentation."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from typing_extensions import override

from datamodules.augmentation.class_symmetries import IMAGE_TURNS, turn_batch
from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.checks import check_choice
from datamodules.messages import listed
from datamodules.resumable import ResumableDataModule
from datamodules.sampling.dataset import SampleDataset, Samples, Source, copy_numbers, fingerprint, int64_ids
from datamodules.sampling.loaders import Loader, make_loader, next_place, place
from datamodules.sampling.neighbourhoods import LAG, Neighbourhoods, complete
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.sample_splits import split_within
from datamodules.sampling.splits import (
    FRACTIONS,
    TooFewClassesError,
    fold_samples,
    split_ranked,
    split_samples,
)
from datamodules.sources.duplicates import report_duplicates, without_duplicates
from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.keyed_random import combine
from metric_module.preprocessing import ImageInput, Preprocessing

AUGMENTATION = 3
WRAP = "a transform of torchvision takes the inputs alone, docs/data.md shows how to give it keys"


@dataclass(eq=False, repr=False)
class PKDataModule(ResumableDataModule):
    """Data module that trains on batches of P classes x K samples; a subclass reads the data set in :meth:`load`.

    Loaders yield :class:`metric_module.Batch`. Nothing here draws from a global random state, and nothing depends on
    the number of workers. With several processes the loaders shard the samples themselves, so
    ``Trainer(use_distributed_sampler=False)`` is required.

    This is a dataclass. A subclass that is one too declares only its own arguments and inherits these.

    Args:
        classes_per_batch: P, over all processes together; None: the number of training classes, at most 32.
        samples_per_class: K.
        seed: Seed of the order of training and of augmentation.
        eval_batch_size: Samples per evaluation batch on each process.
        num_workers: Worker processes of each loader; 0 loads in the main process.
        augment: Function of inputs and one int64 key per sample, applied on the device while training; None: none. The
            default of data modules that read several kinds of inputs is for their images alone.
        class_turns: Probability that all images of a class in a training batch are turned or mirrored alike and form a
            new class, see :func:`datamodules.augmentation.class_symmetries.turn_classes`; square images only. None: 0.6
            for images, 0 for other inputs.
        neighbours: Draw near classes into the same batch: a mapping of ``group``, classes in a group of near ones (4),
            ``share``, share of a batch's classes that come in groups (1.0), and ``every``, optimizer steps between two
            measurements of which classes are near (100), see
            :class:`datamodules.sampling.neighbourhoods.Neighbourhoods`. It needs the callback
            :class:`metric_module.callbacks.ClassNeighbours`. None: random batches.
        short_classes: What to do with classes of fewer than K samples: ``repeat``, ``drop`` or ``error``.
        preflight: Whether to check all samples before the first step, once on each machine, see :meth:`prepare_data`.
        on_bad_sample: What to do with a training sample that cannot be read: ``error`` or ``replace``, see
            :class:`datamodules.SampleDataset`. In evaluation it is always an error.
        split_seed: Seed of the split of the classes and of the folds.
        fractions: Shares of the classes for train, val and test, where the data set does not define a split.
        duplicates: What to do with samples of equal content: ``error`` if they have several labels or are in several
            splits, and a warning if they repeat a sample of their class; ``drop`` keeps the first of each content, and
            none of a content with several labels, since nothing says which is right; ``keep`` uses all.
        split_by: Unit of that split: ``class``, or ``sample`` to divide the samples of each class, for data of few
            classes; val and test then contain classes that are trained on.
        fold: Fold of the train and val classes to use as val, see :func:`datamodules.fold_samples`; None: the split as
            loaded.
        folds: Number of folds.

    Raises:
        UserError: A number is out of range.
    """

    split_units: ClassVar[Sequence[str]] = ("class", "sample")
    """Values of ``split_by``."""

    classes_per_batch: int | None = None
    samples_per_class: int = 4
    _: KW_ONLY
    seed: int = 0
    eval_batch_size: int = 512
    num_workers: int = 0
    preflight: bool = True
    split_seed: int = 0
    fractions: Sequence[float] = FRACTIONS
    split_by: str = "class"
    augment: AugmentFunction | None = None
    class_turns: float | None = 0.0
    neighbours: Mapping[str, Any] | None = None
    short_classes: str = "repeat"
    on_bad_sample: str = "error"
    duplicates: str = "error"
    fold: int | None = None
    folds: int = 4

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_turns is not None and not 0 <= self.class_turns <= 1:
            raise UserError(f"datamodule.class_turns: expected 0 <= class_turns <= 1, got {self.class_turns}")
        check_choice("datamodule.on_bad_sample", self.on_bad_sample, ("error", "replace"))
        _check_augment(self.augment)
        check_choice("datamodule.split_by", self.split_by, self.split_units)
        check_choice("datamodule.duplicates", self.duplicates, ("error", "drop", "keep"))
        self.neighbours = complete(self.neighbours, self.num_workers)
        near = self.neighbours
        self._neighbourhoods = None if near is None else Neighbourhoods(near["group"], near["share"])
        self._train_set: SampleDataset | None = None
        self._sampler: PKSampler | None = None

    @property
    def replaced(self) -> int:
        """Number of training samples that could not be read and were replaced."""
        return 0 if self._train_set is None else self._train_set.replaced

    @override
    def teardown(self, stage: str) -> None:
        """Report how many samples were replaced, and forget the position in training."""
        super().teardown(stage)
        if stage == "fit" and self.replaced:
            rank_zero_warn(
                f"data: {self.replaced} training samples could not be read and were replaced by others of their class"
            )

    @abstractmethod
    def load(self) -> Samples:
        """Read the data set."""

    @cached_property
    def samples(self) -> Samples:
        """The data set, read and checked on first use."""
        samples = self.load()
        samples.check(for_training=not self.any_items)
        if self._trained_as is not None and isinstance(samples.fetch, Source):
            samples.fetch.preprocess_as(self._trained_as)
        reads = samples.fetch.preprocessing if isinstance(samples.fetch, Source) else None
        if self.augment is IMAGE_AUGMENT and reads is not None and not isinstance(reads, ImageInput):
            self.augment = None
        if self.fold is not None and samples.splits:
            samples = samples._replace(splits=self._folded(samples, self.fold))
        return without_duplicates(samples) if self.duplicates == "drop" and not self.any_items else samples

    def _folded(self, samples: Samples, fold: int) -> Mapping[str, Tensor]:
        """Use a fold of the training and validation classes as val."""
        units, names = self.fold_units(samples)
        try:
            return fold_samples(samples.splits, units, names, fold=fold, folds=self.folds, seed=self.split_seed)
        except TooFewClassesError:
            if self.any_items:
                return samples.splits
            raise

    def own_split(self, labels: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Split samples that come without a split, by ``split_by``, ``split_seed`` and ``fractions``.

        Args:
            labels: Class of each sample, int64 ``(N,)``; -1 for a sample without label, if any items will do.
            names: Name of each class, which order the classes; None: they are in order of their labels.

        Returns:
            Int64 ids of ``train``, ``val`` and ``test``; none if the items are only embedded and have too few classes.

        Raises:
            UserError: There are too few classes.
        """
        if self.split_by == "sample":
            return split_within(labels, seed=self.split_seed, fractions=self.fractions)
        known = (labels >= 0).nonzero()[:, 0]  # (n,)
        of, classes = labels[known], 1 + int(labels.max()) if len(labels) else 0
        try:
            if names is None:
                splits = split_ranked(of, classes, seed=self.split_seed, fractions=self.fractions)
            else:
                splits = split_samples(of, names, seed=self.split_seed, fractions=self.fractions)
        except TooFewClassesError as error:
            if self.any_items:
                return {}
            raise UserError(
                f"{error}; change datamodule.fractions, or give +datamodule.split_by=sample to split the samples of "
                "each class (val and test then contain classes that are trained on)"
            ) from None
        return {split: known[ids] for split, ids in splits.items()}

    @cached_property
    @override
    def fingerprint(self) -> str:
        """Hash of labels, class names and splits."""
        samples = self.samples
        return fingerprint(samples.labels, *samples.splits.values(), names=samples.class_names)

    def fold_units(self, samples: Samples) -> tuple[Tensor, Sequence[str]]:
        """Say what a fold holds out together: by default each class.

        Args:
            samples: The data set.

        Returns:
            Unit of each sample, int64 ``(N,)``, and the name of each unit.
        """
        return samples.labels, samples.class_names

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a single item becomes an encoder input; None if the source of this data does not define it."""
        return self.samples.fetch.preprocessing if isinstance(self.samples.fetch, Source) else None

    @property
    def turned_share(self) -> float:
        """Probability that a class of a training batch is turned: ``class_turns``, or its default for these inputs."""
        if self.class_turns is not None:
            return self.class_turns
        return IMAGE_TURNS if isinstance(self.preprocessing, ImageInput) else 0.0

    @property
    def groups(self) -> Tensor | None:
        """Group of every sample by id, int64 ``(N,)``, for retrieval across groups; None without groups."""
        return self.samples.groups

    @property
    def queries(self) -> Tensor | None:
        """Whether each sample, by id, is a query or else gallery, bool ``(N,)``; None if all samples are both."""
        return self.samples.queries

    @property
    def pairs(self) -> Tensor | None:
        """Pairs of ids that verification compares, int64 ``(P, 2)``; None: all pairs."""
        return None if self.samples.listed is None else self.samples.listed.pairs

    @property
    def pair_folds(self) -> Tensor | None:
        """Fold of each listed pair, int64 ``(P,)``; None if there is a single fold."""
        folds = None if self.samples.listed is None else self.samples.listed.folds
        return None if folds is None or not folds.any() else folds

    def class_names_of(self, ids: Sequence[int]) -> list[str]:
        """Name the class of each sample.

        Args:
            ids: The samples.
        """
        return [self.samples.class_name(label) for label in self.samples.labels[int64_ids(ids)].tolist()]

    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """Return a picture or a text of each sample, for the report.

        Args:
            ids: The samples.

        Returns:
            One entry per id, in the same order: the source's own view, otherwise class and id.
        """
        if isinstance(self.samples.fetch, Source):
            return self.samples.fetch.show(ids)
        return [f"{name}, sample {id}" for name, id in zip(self.class_names_of(ids), ids, strict=True)]

    def names_of(self, ids: Sequence[int]) -> list[str]:
        """Name each sample, by its file if it has one.

        Args:
            ids: The samples.
        """
        source = self.samples.fetch
        return source.names(ids) if isinstance(source, Source) else [f"sample {id}" for id in ids]

    def item_names_of(self, ids: Sequence[int]) -> list[str]:
        """Name each sample in files of embeddings: by the path of its file as it is opened, otherwise by its id.

        Args:
            ids: The samples.
        """
        source = self.samples.fetch
        return [source.item_name(id) if isinstance(source, Source) else str(id) for id in ids]

    def classes_trained_on(self, split: str) -> int:
        """Count the classes of a split that the training split has too; 0 where the classes themselves are split."""
        labels, splits = self.samples.labels, self.samples.splits
        return int(torch.isin(torch.unique(labels[splits[split]]), torch.unique(labels[splits["train"]])).sum())

    def classes_in(self, split: str) -> int:
        """Count the classes of a split."""
        return len(torch.unique(self.samples.labels[self.samples.splits[split]]))

    @override
    def find_problems(self) -> list[str]:
        """List samples that cannot be used, as their source reports them, equal ones, and training classes of one."""
        samples, splits = self.samples, dict(self.samples.splits)
        if self.any_items:
            everything = {"all": torch.arange(len(samples.labels))}
            return samples.fetch.problems(everything) if isinstance(samples.fetch, Source) else []
        count = samples.labels[splits["train"]].bincount()  # (C,)
        if self.short_classes == "drop":
            splits["train"] = splits["train"][count[samples.labels[splits["train"]]] > 1]
            count[count == 1] = 0
        single = [samples.class_name(label) for label in (count == 1).nonzero()[:, 0].tolist()]
        return [
            *(samples.fetch.problems(splits) if isinstance(samples.fetch, Source) else []),
            *report_duplicates(samples, refuse=self.duplicates == "error"),
            *listed(
                "training classes of a single sample (short_classes=drop leaves them out)",
                single if self.for_training else [],
            ),
        ]

    @override
    def setup(self, stage: str) -> None:
        """Read the data; before training, check the sampler's arguments too.

        Raises:
            UserError: The data set, or an argument of the sampler, cannot be used.
        """
        super().setup(stage)
        self.samples  # noqa: B018  # reads the data set here instead of in the first batch
        if stage == "fit" and not self.any_items:
            if self._neighbourhoods is not None:
                self._neighbourhoods.tables.clear()  # of an earlier fit
            sampler = self.train_sampler()
            if self.classes_per_batch is None:
                shape = f"{sampler.classes_per_batch} classes x {self.samples_per_class} samples"
                rank_zero_info(f"datamodule.classes_per_batch: batches of {shape}, by the number of training classes")

    @property
    def drawn_by(self) -> Tensor:
        """Class of each sample for the training sampler, int64 ``(N,)``: a batch has P of these."""
        return self.samples.labels

    @override
    def train_sampler(self) -> PKSampler:
        """Make the sampler of this process's training batches, as positions in the training split."""
        rank, world_size = place(self.trainer)
        self._sampler = PKSampler(
            self.drawn_by[self.samples.splits["train"]],
            self.classes_per_batch,
            self.samples_per_class,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            short_classes=self.short_classes,
            neighbourhoods=self._neighbourhoods,
        )
        return self._sampler

    @override
    def train_dataset(self, sampler: Any) -> SampleDataset:
        """Make the data set of the training split."""
        self._train_set = self._training_samples()
        return self._train_set

    def _training_samples(self) -> SampleDataset:
        return SampleDataset(self.samples, self.samples.splits["train"], replace=self.on_bad_sample == "replace")

    @property
    def neighbour_tables(self) -> Mapping[int, Tensor]:
        """Tables of class neighbours, int32 ``(C, N)``, by the training batch from which they hold."""
        return {} if self._neighbourhoods is None else self._neighbourhoods.tables

    @property
    def next_neighbours_step(self) -> int:
        """First batch of the first round of which no batch can have been drawn, counted from the start of training."""
        sampler, (epoch, step) = self._made_sampler, next_place(self.trainer)
        now, end = epoch * sampler.batches_per_epoch + step, (epoch + 1) * sampler.batches_per_epoch
        undrawn = min(now + LAG, end) if step else now  # no worker reads beyond its epoch
        return -(-undrawn // sampler.batches_per_round) * sampler.batches_per_round

    @property
    def _made_sampler(self) -> PKSampler:
        return self.train_sampler() if self._sampler is None else self._sampler

    def centre_samples(self, number: int) -> tuple[Tensor, DataLoader[Batch]]:
        """Choose at most ``samples_per_class`` training samples of each class, whose mean embedding is its centre.

        Args:
            number: Another number chooses other samples.

        Returns:
            Class of each, as 0 to C - 1 in order of the labels, int64 ``(n,)``, and a loader of the samples in this
            order, without augmentation. With W processes each loads every W-th sample; up to W - 1 at the end come
            twice.
        """
        places, classes = self._made_sampler.some_of_each(number)
        shard = ShardedSampler(len(places), *place(self.trainer))
        chosen = Subset(self._training_samples(), places.tolist())
        return classes, make_loader(Loader, chosen, shard, self.eval_batch_size, self.num_workers)

    def set_neighbours(self, table: Tensor, first_step: int) -> None:
        """Take a table of class neighbours, and drop those that no further batch needs.

        Args:
            table: Nearest other classes of each class, nearest first, int32 ``(C, N)``.
            first_step: Batch from which it holds, :attr:`next_neighbours_step`; 0 before training.
        """
        if self._neighbourhoods is not None:
            self._neighbourhoods.tables[first_step] = table
            self._neighbourhoods.tables = self._needed_tables()

    def _needed_tables(self) -> dict[int, Tensor]:
        """Tables of the next training batch and of later ones."""
        if self._neighbourhoods is None:
            return {}
        sampler, (epoch, step) = self._made_sampler, next_place(self.trainer)
        now = epoch * sampler.batches_per_epoch + step
        return self._neighbourhoods.from_step(now - now % sampler.batches_per_round)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return also the tables of class neighbours that are still needed."""
        state = super().state_dict()
        return state if self._neighbourhoods is None else state | {"neighbours": self._needed_tables()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training at a position from :meth:`state_dict`, with its tables of class neighbours."""
        super().load_state_dict(state_dict)
        if self._neighbourhoods is not None:
            self._neighbourhoods.tables = dict(state_dict.get("neighbours", {}))

    @override
    def eval_loaders(self, split: str) -> DataLoader[Batch]:
        """See :meth:`eval_dataloader`."""
        return self.eval_dataloader(split)

    def eval_dataloader(self, split: str) -> DataLoader[Batch]:
        """Load every sample of a split once, in order, without augmentation.

        With W processes each takes every W-th sample. All get the same number, so up to W - 1 samples come twice: drop
        them by id.

        Args:
            split: ``train``, ``val``, ``test``, or ``all`` of them; if any items will do, ``all`` is every item.

        Raises:
            UserError: The split does not exist.
        """
        splits = self.samples.splits
        if split not in {*splits, "all"}:
            raise UserError(f"unknown split {split!r}: expected one of {', '.join([*splits, 'all'])}")
        if split != "all":
            ids = splits[split]
        elif self.any_items:
            ids = torch.arange(len(self.samples.labels))
        else:
            ids = torch.cat(list(splits.values())).sort().values
        return self.sharded_loader(self.samples, ids)

    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Augment a training batch: turn whole classes, then augment each sample.

        The draws are a function of (seed, epoch, class) and of (seed, epoch, id, copy within the batch).

        Args:
            batch: The batch.
            epoch: Epoch of training.
        """
        batch = turn_batch(batch, self.turned_share, seed=self.seed, epoch=epoch)
        if self.augment is None:
            return batch
        keys = combine(self.seed, AUGMENTATION, epoch, batch.index, copy_numbers(batch.index))  # (B,)
        inputs = self.augment(batch.inputs, keys)
        if isinstance(inputs, tuple | list):
            got = f"a {type(inputs).__name__} of {len(inputs)}"
            raise UserError(f"{_takes_two(self.augment)}, which returned {got}; {WRAP}")
        return batch._replace(inputs=inputs)

    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment on the device, only while training."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.augment_batch(batch, self.trainer.current_epoch)


def _check_augment(augment: AugmentFunction | None) -> None:
    """Accept a function of two arguments; of a torch module, it is ``forward`` that takes them."""
    if augment is None:
        return
    function = getattr(augment, "forward", augment)
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError) as error:
        raise UserError(f"{_takes_two(augment)}, which cannot be called with two ({error}); {WRAP}") from None


def _takes_two(augment: Any) -> str:
    """Begin the message about a function of other arguments."""
    name = getattr(augment, "__name__", type(augment).__name__)
    return f"datamodule.augment: expected a function of inputs and keys, got {name}"
