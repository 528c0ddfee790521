"""Ids of samples that a data loader yields without ids: equal on any number of processes.

Legend: N = samples of the data set, B = samples of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from numbers import Integral
from typing import Any

import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from metric_module.distributed import world_size
from metric_module.errors import UserError

SHUFFLED = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


class SampleIds:
    """Ids of the samples of one loader, for batches that come without ids.

    On several processes, or for facts that the data module lists by id, an id is the position in the data set that the
    loader's sampler yields. Padding then has the id of the sample that it repeats. Otherwise, and for loaders without
    such positions, samples are numbered in the order in which they come.

    Args:
        loader: The loader, as the trainer uses it on this process.
        by_id: Whether the data module has facts by id.
    """

    def __init__(self, loader: Any, by_id: bool) -> None:
        self._loader = loader
        self._by_id = by_id
        self._seen = 0
        self._batches: list[list[int]] | None = None

    def of_batch(self, number: int, count: int) -> Tensor:
        """Return the ids of the next batch, int64 ``(B,)``.

        Args:
            number: Number of the batch in the loader.
            count: B.

        Raises:
            UserError: If the data module has facts by id and the loader is shuffled, or if the batch does not have one
                sample for each position of the sampler.
        """
        first, self._seen = self._seen, self._seen + count
        if not first and (self._by_id or world_size() > 1):
            self._batches = positions(self._loader)
            if self._batches is None and self._by_id and is_shuffled(self._loader):
                raise UserError(
                    "batch: expected (inputs, labels, index), as the data module has groups, queries or pairs by id "
                    "and its loader is shuffled; yield the ids, or use shuffle=False"
                )
        if self._batches is None:
            return torch.arange(first, first + count)
        if number >= len(self._batches) or len(self._batches[number]) != count:
            sampled = len(self._batches[number]) if number < len(self._batches) else 0
            raise UserError(
                f"batch: expected {sampled} samples, as many as the sampler drew, got {count} in batch {number}; "
                "yield (inputs, labels, index)"
            )
        return torch.tensor(self._batches[number])


def flat_loaders(loaders: Any) -> list[Any]:
    """List the loaders in a loader or a collection of loaders; None has none.

    Example:
        >>> flat_loaders({"a": [1], "b": [2]})
        [[1], [2]]
    """
    return [] if loaders is None else list(CombinedLoader(loaders, "sequential").flattened)


def sampler_of(loader: Any) -> Any:
    """Return the sampler that a loader draws from, which Lightning may have wrapped; None if it has none."""
    batches = getattr(loader, "batch_sampler", None)
    return getattr(batches, "sampler", None) or (getattr(loader, "sampler", None) if batches is None else batches)


def original_sampler(sampler: Any) -> Any:
    """Return the user's sampler inside Lightning's wrapper for several processes, or the sampler itself."""
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def is_shuffled(loader: Any) -> bool:
    """Whether a loader draws in an order that cannot be read a second time."""
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return False
    sampler = original_sampler(sampler_of(loader))
    return isinstance(sampler, SHUFFLED) or (isinstance(sampler, Sampler) and _repeated(sampler) is None)


def positions(loader: Any) -> list[list[int]] | None:
    """Return the positions in the data set of each batch of a loader; None if they cannot be known.

    They are known for a map-style data set with a sampler that yields the same positions whenever it is iterated.

    Args:
        loader: The loader.
    """
    batches = getattr(loader, "batch_sampler", None)
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or batches is None:
        return None
    if is_shuffled(loader):  # asked first: to iterate over a wrapper would draw anew for the running epoch
        return None
    found = _repeated(batches)
    whole = found is not None and all(isinstance(batch, list | tuple) for batch in found)
    whole = whole and all(isinstance(place, Integral) for batch in found or () for place in batch)
    return [[int(place) for place in batch] for batch in found or ()] if whole else None


def _repeated(sampler: Iterable[Any]) -> list[Any] | None:
    """List what a sampler yields; None if a second iteration yields something else."""
    if isinstance(sampler, SequentialSampler) or (
        type(sampler) is BatchSampler and isinstance(sampler.sampler, SequentialSampler)
    ):
        return list(sampler)
    if not isinstance(sampler, Sized):  # it may have no end
        return None
    with torch.random.fork_rng(devices=[]):
        first, second = list(sampler), list(sampler)
    return first if first == second else None
