"""Optional facts about a data set, read from any ``LightningDataModule``.

Legend: N samples of the data set by id, P pairs, n samples asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from metric_module.evaluation import Sought
from metric_module.preprocessing import Preprocessing
from metric_module.report.closed_set import CLASSES, TRAINED

T = TypeVar("T")


class Fact(Generic[T]):
    """An attribute or method that a data module may have; None where it has none.

    An error that is raised inside a property of the data module is passed on.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, facts: DataModuleFacts, owner: type) -> T | None:
        if inspect.getattr_static(facts.datamodule, self._name, None) is None:
            return None
        found: T | None = getattr(facts.datamodule, self._name)
        return found


class DataModuleFacts:
    """Everything beyond Lightning's own methods that this project may ask of a data module.

    A data module of a user's own may offer any of these under the same name.

    Args:
        datamodule: Any data module, or None; without one, every fact is None.

    Example:
        >>> class Named(LightningDataModule):
        ...     def class_names_of(self, ids):
        ...         return [f"class of {id}" for id in ids]
        >>> facts = DataModuleFacts(Named())
        >>> facts.class_names_of([4]), facts.groups
        (['class of 4'], None)
    """

    groups = Fact[Tensor]()
    """Group of each sample, int64 ``(N,)``: items of a query's class and group are ignored in retrieval."""

    queries = Fact[Tensor]()
    """Whether each sample is a query or else belongs to the gallery, bool ``(N,)``."""

    pairs = Fact[Tensor]()
    """Pairs of ids that verification compares, int64 ``(P, 2)``."""

    pair_folds = Fact[Tensor]()
    """Fold of each of these pairs, int64 ``(P,)``."""

    sought = Fact[Mapping[str, Sought]]()
    """References of each query by ``val`` and ``test``: data of relations, without classes."""

    show = Fact[Callable[[Sequence[int]], list[Any]]]()
    """Maps ids ``(n,)`` to a picture (``PIL.Image``) or a text of each sample."""

    class_names_of = Fact[Callable[[Sequence[int]], list[str]]]()
    """Maps ids ``(n,)`` to the class name of each sample."""

    names_of = Fact[Callable[[Sequence[int]], list[str]]]()
    """Maps ids ``(n,)`` to the name of each sample, such as its file, for people."""

    item_names_of = Fact[Callable[[Sequence[int]], list[str]]]()
    """Maps ids ``(n,)`` to the name of each sample in a file of embeddings, such as a path that opens."""

    classes_trained_on = Fact[Callable[[str], int]]()
    """Maps a split to the number of its classes that the training split has too."""

    classes_in = Fact[Callable[[str], int]]()
    """Maps a split to the number of its classes."""

    classes_per_batch = Fact[int]()
    """Classes in a training batch, over all processes together."""

    samples_per_class = Fact[int]()
    """Samples of each class in a training batch."""

    eval_dataloader = Fact[Callable[[str], Any]]()
    """Maps ``train``, ``val``, ``test`` or ``all`` to a loader of every sample of that split once."""

    preprocessing = Fact[Preprocessing]()
    """How one item becomes an encoder input; checkpoints keep it."""

    preprocess_as = Fact[Callable[[Preprocessing], None]]()
    """Makes the data module read its items as a trained encoder needs them."""
    accept_any_items = Fact[Callable[[], None]]()
    """Prepares the data module to read every given item, labelled or not, since they are only embedded."""

    neighbours = Fact[Mapping[str, Any]]()
    """Settings of class neighbourhoods: ``group``, ``share`` and ``every``."""

    neighbour_tables = Fact[Mapping[int, Tensor]]()
    """Tables of class neighbours, int32 ``(C, N)``, by the training batch from which they hold."""

    next_neighbours_step = Fact[int]()
    """First training batch for which a new table of class neighbours can hold."""

    centre_samples = Fact[Callable[[int], tuple[Tensor, Any]]]()
    """Maps a number to some samples of each class: their classes, int64 ``(n,)``, and a loader of this order."""

    set_neighbours = Fact[Callable[[Tensor, int], None]]()
    """Takes a table of class neighbours and the training batch from which it holds."""

    samples = Fact[Any]()
    """The data set itself; :attr:`splits` and :attr:`labels` are all that is read of it."""

    def __init__(self, datamodule: LightningDataModule | None) -> None:
        self.datamodule = datamodule

    @classmethod
    def of(cls, trainer: Trainer) -> DataModuleFacts:
        """Facts about the data module of a running trainer, which may have been given loaders instead."""
        return cls(getattr(trainer, "datamodule", None))

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Classes and samples per class of a training batch; 32 and 4 where the data module does not say."""
        return self.classes_per_batch or 32, self.samples_per_class or 4

    def trained_classes(self, split: str) -> dict[str, float]:
        """Count the classes of a split and those of them that are trained on, as figures of that split.

        Args:
            split: ``val`` or ``test``.

        Returns:
            The counts by the names of :mod:`metric_module.report.closed_set`; empty if no class is trained on, or if
            the data module does not say.
        """
        trained = 0 if self.classes_trained_on is None else self.classes_trained_on(split)
        if not trained:
            return {}
        counts = {} if self.classes_in is None else {CLASSES: float(self.classes_in(split))}
        return counts | {TRAINED: float(trained)}

    @property
    def has_ids(self) -> bool:
        """Whether the data module lists anything by the id of a sample."""
        return any(fact is not None for fact in (self.groups, self.queries, self.pairs, self.sought))

    @property
    def in_one_set(self) -> bool:
        """Whether all loaders of a stage are one retrieval task: queries and what they search."""
        return self.queries is not None or self.sought is not None

    @property
    def splits(self) -> Mapping[str, Tensor] | None:
        """Ids of each split, int64; from ``samples.splits`` of the data module."""
        return getattr(self.samples, "splits", None)

    @property
    def labels(self) -> Tensor | None:
        """Class of each sample, int64 ``(N,)``; from ``samples.labels`` of the data module."""
        return getattr(self.samples, "labels", None)
