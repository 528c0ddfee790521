"""A labelled data set in integer arrays, and its view as batches.

Legend: N = samples, B = samples in a batch, C = classes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from datamodules.messages import shortened
from datamodules.sampling.read_ahead import Positions
from datamodules.sampling.splits import SPLITS
from datamodules.sampling.verification_pairs import ListedPairs
from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.preprocessing import ImageInput, Preprocessing


class BadSampleError(Exception):
    """A sample that cannot be read.

    Args:
        id: The sample.
        reason: Its file, and what is wrong with it.
    """

    def __init__(self, id: int, reason: str) -> None:
        super().__init__(id, reason)  # both, so that pickle can rebuild it in another process
        self.id = id
        self.reason = reason


class StoreError(UserError):
    """A store that fails as a whole; unlike for a sample that cannot be read, another one must not take its place."""


class Source(ABC):
    """Source of inputs by id, which can also check its samples and show them to people.

    Attributes:
        preprocessing: How a single item becomes an input of this source; None: undefined.
        reads_ahead: Whether :meth:`prefetch` should be told the samples of later batches.
    """

    preprocessing: Preprocessing | None = None
    reads_ahead: bool = False

    def prefetch(self, ids: Tensor) -> None:  # noqa: B027  # most sources have nothing to fetch
        """Begin to fetch samples that will be read next, in this order.

        Args:
            ids: Samples, int64 ``(B,)``.
        """

    def preprocess_as(self, preprocessing: Preprocessing) -> None:
        """Read images as an encoder was trained to; other inputs stay as they are, for the encoder to check.

        Args:
            preprocessing: That of the encoder.
        """
        if isinstance(self.preprocessing, ImageInput) and isinstance(preprocessing, ImageInput):
            self.preprocessing = preprocessing

    @abstractmethod
    def __call__(self, ids: Tensor) -> Any:
        """Read inputs.

        Args:
            ids: Samples, int64 ``(B,)``.

        Returns:
            Inputs, first dimension B.

        Raises:
            BadSampleError: The first sample that cannot be read.
            StoreError: None can be read at present.
        """

    @abstractmethod
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """Return a picture or a text of each sample, for people; its name if it cannot be read.

        Args:
            ids: Samples.
        """

    def names(self, ids: Sequence[int]) -> list[str]:
        """Name each sample, for people; a source of files names them.

        Args:
            ids: Samples.
        """
        return [f"sample {id}" for id in ids]

    def item_name(self, row: int) -> str:
        """Name one sample in files of embeddings; a source of files returns its path."""
        return str(row)

    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """List samples that cannot be used, one line for each kind of problem.

        Args:
            splits: Ids of the samples in each split that will be used, int64.
        """
        return []

    def contents(self) -> npt.NDArray[np.int64] | None:
        """Hash the content of every sample, so that samples of equal content are found.

        Returns:
            Int64 ``(N,)``, 0 for a sample whose content is unknown; None: equal content is not looked for.
        """
        return None

    def name_of(self, row: int) -> str:
        """Name one sample, for messages."""
        return f"sample {row}"


class Samples(NamedTuple):
    """A labelled data set. The id of a sample is its row, unique across the splits.

    Attributes:
        fetch: Maps ids, int64 ``(B,)``, to inputs, first dimension ``B``; works on many samples at once. Raises
            :class:`BadSampleError` for one that cannot be read. A :class:`Source` can also check and show samples.
        labels: Class of each sample, int64 ``(N,)``.
        splits: Ids of the samples in ``train``, ``val`` and ``test``, int64.
        class_names: Name of each class, by label.
        groups: Origin of each sample (camera, design family), int64 ``(N,)``, or None.
        queries: Whether each sample is a query or else gallery in evaluation, bool ``(N,)``; None: all are both.
        listed: Pairs of ids that verification compares; None: all pairs.
    """

    fetch: Callable[[Tensor], Any]
    labels: Tensor
    splits: Mapping[str, Tensor]
    class_names: Sequence[str] = ()
    groups: Tensor | None = None
    queries: Tensor | None = None
    listed: ListedPairs | None = None

    def class_name(self, label: int) -> str:
        """Name a class; a sample without label has the class -1, which has no name."""
        if label < 0:
            return ""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def check(self, for_training: bool = True) -> None:
        """Check types, shapes and splits, so that mistakes are found before training.

        Args:
            for_training: Whether every sample needs a label, and every split samples.

        Raises:
            UserError: Labels, groups or queries have another type or shape, a label is negative, a split is missing or
                empty, or splits share samples.
        """
        labels = self.labels
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise UserError(f"expected labels as an int64 tensor of shape (N,), got {_in_words(labels)}")
        below = sorted(set(labels[labels < 0].tolist()))
        if below and for_training:
            raise UserError(f"expected labels >= 0, got {shortened(below)}; leave such samples out")
        for name, tensor, kind, words in (
            ("groups", self.groups, torch.int64, "an int64"),
            ("queries", self.queries, torch.bool, "a bool"),
        ):
            if tensor is not None and (tensor.dtype != kind or tensor.shape != labels.shape):
                expected = f"{words} tensor of shape {tuple(labels.shape)}"
                raise UserError(f"expected {name} as {expected}, got {_in_words(tensor)}")
        empty = [name for name in SPLITS if name not in self.splits or not len(self.splits[name])]
        if empty and for_training:
            raise UserError(f"splits without samples: {', '.join(empty)}")
        if twice := _in_two([ids for ids in self.splits.values() if len(ids)]):
            raise UserError(f"samples in more than one split, by id: {shortened(twice)}")


def _in_words(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _in_two(splits: Sequence[Tensor]) -> list[int]:
    """Find ids that occur more than once, ascending; a byte per id avoids sorting millions of them."""
    seen = torch.zeros(max((int(part.max()) for part in splits), default=0) + 1, dtype=torch.bool)
    for part in splits:
        seen[part] = True
    if int(seen.sum()) == sum(map(len, splits)):
        return []
    ids = torch.cat(list(splits)).sort().values
    found: list[int] = torch.unique(ids[1:][ids[1:] == ids[:-1]]).tolist()
    return found


class SampleDataset(Dataset[Batch]):
    """Some samples of a data set, fetched a whole batch at a time.

    Args:
        samples: The data set.
        index: Ids of the samples to use, int64.
        replace: Whether a sample that cannot be read is replaced by another of its class: the next one in the data set
            that can be read and is not in the batch, so a batch keeps its P x K. At most one sample in a hundred is
            replaced, or ten.

    Raises:
        UserError: A sample cannot be read and is not, or no longer, replaced.

    Example:
        >>> samples = Samples(lambda ids: ids.float(), torch.tensor([7, 8, 9]), {})
        >>> SampleDataset(samples, torch.tensor([0, 2])).__getitems__([1])
        Batch(inputs=tensor([2.]), labels=tensor([9]), index=tensor([2]))
    """

    def __init__(self, samples: Samples, index: Tensor, replace: bool = False) -> None:
        self.samples = samples
        self.index = index
        self.replace = replace
        # Samples that were replaced, in memory that all worker processes share.
        self._bad = torch.zeros(len(samples.labels) if replace else 0, dtype=torch.bool)  # (N,)
        self._bad.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def reads_ahead(self) -> bool:
        """Whether :meth:`__getitems__` makes use of the positions of a later batch."""
        return isinstance(self.samples.fetch, Source) and self.samples.fetch.reads_ahead

    @property
    def replaced(self) -> int:
        """Number of samples that could not be read so far."""
        return int(self._bad.sum())

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.index)

    @override
    def __getitem__(self, position: int) -> Batch:
        """Read the sample at a position, as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Read the samples at some positions as one batch; torch's loader prefers this method."""
        asked = self.index[torch.as_tensor(positions)]  # (B,)
        if isinstance(positions, Positions) and isinstance(self.samples.fetch, Source):
            later = self.index[torch.tensor(positions.later, dtype=torch.int64)]
            self.samples.fetch.prefetch(torch.cat([asked, later]))
        ids = asked
        while True:
            try:
                return Batch(self.samples.fetch(ids), self.samples.labels[ids], ids)
            except BadSampleError as error:
                if not self.replace:
                    raise UserError(f"data: cannot read {error.reason}") from error
                ids = self._without_bad(asked, error)

    def _without_bad(self, asked: Tensor, error: BadSampleError) -> Tensor:
        """Replace the samples that cannot be read in the requested ids ``(B,)``.

        The result depends on these ids and on the set of unreadable samples, not on when they were found.
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
    """Collate nothing: the data set already returns batches."""
    return batch


def fingerprint(*numbers: Tensor, names: Sequence[str] = ()) -> str:
    """Hash the numbers and names that identify a data set; ten million samples take a fraction of a second.

    Args:
        numbers: Integers of any shape.
        names: Any texts.

    Example:
        >>> fingerprint(torch.tensor([1, 2]), names=["a"]) == fingerprint(torch.tensor([1]), torch.tensor([2]))
        False
    """
    found = hashlib.blake2b(digest_size=16)
    for part in numbers:
        found.update(f"{len(part)};".encode())
        found.update(part.contiguous().numpy().data)
    found.update("\0".join(names).encode(errors="surrogateescape"))
    return found.hexdigest()


def int64_ids(ids: Sequence[int]) -> Tensor:
    """Convert ids to an int64 tensor ``(B,)``, also if there are none."""
    return torch.tensor(list(ids), dtype=torch.int64)


def copy_numbers(index: Tensor) -> Tensor:
    """Count the equal ids before each id of a batch: int64 ``(B,) -> (B,)``.

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
