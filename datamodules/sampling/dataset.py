"""A labelled data set in integer arrays, and its view as batches.

Legend: N samples, B samples of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from datamodules.sampling.verification_pairs import ListedPairs
from metric_module.batch import Batch
from metric_module.errors import UserError

SHOWN = 20
LISTED = 1000


class BadSampleError(Exception):
    """A sample cannot be read.

    Args:
        id: Which.
        reason: Its file, and what is wrong with it.
    """

    def __init__(self, id: int, reason: str) -> None:
        super().__init__(id, reason)  # both, so that it can travel from a worker
        self.id = id
        self.reason = reason


class Source(ABC):
    """Where inputs come from, when there is more to say than ids to inputs: what is wrong with them, how they look."""

    @abstractmethod
    def __call__(self, ids: Tensor) -> Any:
        """Inputs of int64 ids ``(B,)``, first dimension B.

        Raises:
            BadSampleError: The first sample that cannot be read.
        """

    @abstractmethod
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """A picture or a text of each sample, for people; of one that cannot be read, its name."""

    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """What is wrong with the samples, a line for each kind of problem, with all samples listed.

        Args:
            splits: Ids of the samples of each split that will be used, int64.
        """
        return []


def listed(title: str, names: Sequence[str]) -> list[str]:
    """A line that counts and lists, or none; of millions, it lists the first thousand.

    Example:
        >>> listed("files cannot be read", ["a.png", "b.png"])
        ['2 files cannot be read: a.png, b.png']
    """
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return [f"{len(names)} {title}: {', '.join(names[:LISTED])}{more}"] if names else []


class Samples(NamedTuple):
    """A labelled data set. The id of a sample is its row, unique across the splits.

    Attributes:
        fetch: Maps ids, int64 ``(B,)``, to inputs, first dimension ``B``; works on many samples at once. Raises
            :class:`BadSampleError` for one that cannot be read. A :class:`Source` can say more.
        labels: Class of each sample, int64 ``(N,)``.
        splits: Ids of the samples of each split, int64; ``train``, ``val`` and ``test``.
        class_names: Name of each class, by label.
        groups: Where each sample comes from (camera, design family), int64 ``(N,)``, or None.
        queries: Whether each sample is a query in evaluation, or else of the gallery, bool ``(N,)``; None: both.
        listed: Pairs of ids that verification looks at, or None.
    """

    fetch: Callable[[Tensor], Any]
    labels: Tensor
    splits: Mapping[str, Tensor]
    class_names: Sequence[str] = ()
    groups: Tensor | None = None
    queries: Tensor | None = None
    listed: ListedPairs | None = None

    def class_name(self, label: int) -> str:
        """A class in words."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def check(self) -> None:
        """Find what would otherwise go wrong while training.

        Raises:
            UserError: Labels, groups or queries have another type or shape, a label is negative, a split is missing or
                empty, or splits share samples.
        """
        labels = self.labels
        if labels.dtype != torch.int64 or labels.ndim != 1:
            shape = tuple(labels.shape)
            raise UserError(f"expected labels as an int64 tensor of shape (N,), got {labels.dtype} of shape {shape}")
        below = sorted(set(labels[labels < 0].tolist()))
        if below:
            more = f" and {len(below) - SHOWN} more" if len(below) > SHOWN else ""
            raise UserError(
                f"expected labels >= 0, got {', '.join(map(str, below[:SHOWN]))}{more}; leave such samples out"
            )
        if self.groups is not None and (self.groups.dtype != torch.int64 or self.groups.shape != labels.shape):
            found = f"{self.groups.dtype} of shape {tuple(self.groups.shape)}"
            raise UserError(f"expected groups as an int64 tensor of shape {tuple(labels.shape)}, got {found}")
        if self.queries is not None and (self.queries.dtype != torch.bool or self.queries.shape != labels.shape):
            found = f"{self.queries.dtype} of shape {tuple(self.queries.shape)}"
            raise UserError(f"expected queries as a bool tensor of shape {tuple(labels.shape)}, got {found}")
        empty = [name for name in ("train", "val", "test") if name not in self.splits or not len(self.splits[name])]
        if empty:
            raise UserError(f"splits without samples: {', '.join(empty)}")
        if twice := _in_two([ids for ids in self.splits.values() if len(ids)]):
            more = f" and {len(twice) - SHOWN} more" if len(twice) > SHOWN else ""
            raise UserError(f"samples in more than one split, by id: {', '.join(map(str, twice[:SHOWN]))}{more}")


def _in_two(parts: Sequence[Tensor]) -> list[int]:
    """Ids that come more than once, ascending; a byte for each id spares the sort of millions."""
    seen = torch.zeros(max(int(part.max()) for part in parts) + 1, dtype=torch.bool)
    for part in parts:
        seen[part] = True
    if int(seen.sum()) == sum(map(len, parts)):
        return []
    ids = torch.cat(list(parts)).sort().values
    found: list[int] = torch.unique(ids[1:][ids[1:] == ids[:-1]]).tolist()
    return found


class SampleDataset(Dataset[Batch]):
    """Some samples of a data set, fetched a whole batch at a time.

    Args:
        samples: The data set.
        index: Ids of the samples to show, int64.
        replace: Whether a sample that cannot be read is replaced by another of its class. It is the first one after it
            in the data set that can be read and is not in the batch, so the P x K of a batch stays; at most one of a
            hundred samples is, or ten.

    Raises:
        UserError: When a sample cannot be read and is not, or no longer, replaced.

    Example:
        >>> samples = Samples(lambda ids: ids.float(), torch.tensor([7, 8, 9]), {})
        >>> SampleDataset(samples, torch.tensor([0, 2])).__getitems__([1])
        Batch(inputs=tensor([2.]), labels=tensor([9]), index=tensor([2]))
    """

    def __init__(self, samples: Samples, index: Tensor, replace: bool = False) -> None:
        self.samples = samples
        self.index = index
        self.replace = replace
        # Which samples were replaced, for all worker processes to see.
        self._bad = torch.zeros(len(samples.labels) if replace else 0, dtype=torch.bool)  # (N,)
        self._bad.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def replaced(self) -> int:
        """How many samples could not be read so far."""
        return int(self._bad.sum())

    def __len__(self) -> int:
        """Number of samples shown."""
        return len(self.index)

    @override
    def __getitem__(self, position: int) -> Batch:
        """The sample at a position, as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """The samples at some positions, as one batch; torch's loader calls it when it is there."""
        asked = self.index[torch.as_tensor(positions)]  # (B,)
        ids = asked
        while True:
            try:
                return Batch(self.samples.fetch(ids), self.samples.labels[ids], ids)
            except BadSampleError as error:
                if not self.replace:
                    raise UserError(f"data: cannot read {error.reason}") from error
                ids = self._without_bad(asked, error)

    def _without_bad(self, asked: Tensor, error: BadSampleError) -> Tensor:
        """The ids that were asked for, ``(B,)``, those that cannot be read replaced.

        The result depends on these ids and on which samples cannot be read, not on when that was found out.
        """
        self._bad[error.id] = True
        most = max(10, len(self.index) // 100)
        if self.replaced > most:
            raise UserError(f"data: more than {most} samples cannot be read, the last: {error.reason}") from error
        labels, chosen = self.samples.labels, asked.clone()
        for place in self._bad[asked].nonzero()[:, 0].tolist():
            label = labels[asked[place]]
            same = self.index[(labels[self.index] == label) & ~self._bad[self.index]]  # (n,)
            if not len(same):
                raise UserError(
                    f"data: no sample of class {int(label)} can be read, the last: {error.reason}"
                ) from error
            new = same[~torch.isin(same, torch.cat([asked, chosen]))]
            new = new if len(new) else same
            after = new[new > asked[place]]
            chosen[place] = (after if len(after) else new)[0]
        return chosen


def as_it_is(batch: Any) -> Any:
    """Collate function of a data set that already gives batches."""
    return batch


def copy_numbers(index: Tensor) -> Tensor:
    """How many equal ids come before each id of a batch: int64 ``(B,) -> (B,)``.

    Example:
        >>> copy_numbers(torch.tensor([5, 3, 5, 5])).tolist()
        [0, 0, 1, 2]
    """
    ordered, order = index.sort(stable=True)  # (B,), (B,)
    place = torch.arange(len(index), device=index.device)  # (B,)
    new = torch.ones_like(place, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(new, place, 0).cummax(dim=0).values if len(index) else place  # (B,)
    return torch.empty_like(place).scatter_(0, order, place - first)
