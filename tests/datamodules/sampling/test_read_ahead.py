"""Tests of batches that name the samples of a later batch."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler
from typing_extensions import override

from datamodules.sampling.dataset import SampleDataset, Samples, Source
from datamodules.sampling.loaders import Loader, make_loader
from datamodules.sampling.neighbourhoods import LAG
from datamodules.sampling.pk_sampler import ShardedSampler
from datamodules.sampling.read_ahead import Positions, ReadAhead


class Recorder(Source):
    """Source of its own ids, which records what it is told to prefetch."""

    reads_ahead = True

    def __init__(self) -> None:
        self.told: list[list[int]] = []

    @override
    def prefetch(self, ids: Tensor) -> None:
        self.told.append(ids.tolist())

    @override
    def __call__(self, ids: Tensor) -> list[list[int]]:
        return [list(told) for told in self.told]

    @override
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        return []


@pytest.mark.parametrize("workers", [0, 2])
def test_each_batch_names_the_next_one_of_its_worker(workers: int) -> None:
    source = Recorder()
    data = SampleDataset(Samples(source, torch.zeros(20, dtype=torch.int64), {}), torch.arange(20).flip(0))
    loader = make_loader(Loader, data, ShardedSampler(20), 4, workers)
    assert len(loader) == 5
    got = [(batch.index.tolist(), batch.inputs[-1]) for batch in loader]
    batches = [[*range(19 - 4 * number, 15 - 4 * number, -1)] for number in range(5)]
    steps = max(1, workers)
    later = [batches[number + steps] if number + steps < 5 else [] for number in range(5)]
    assert got == [(batch, batch + after) for batch, after in zip(batches, later, strict=True)]


def test_positions_survive_the_queue_of_a_worker() -> None:
    copy = pickle.loads(pickle.dumps(Positions([3, 1], [4])))
    assert (copy, copy.later) == ([3, 1], [4]) and torch.as_tensor(copy).tolist() == [3, 1]


@pytest.mark.parametrize("workers", [0, 1, 13, 14, 19])
def test_no_more_is_drawn_ahead_than_class_neighbourhoods_allow(workers: int) -> None:
    """Torch draws two batches ahead for each worker."""
    ahead = ReadAhead([], workers).ahead
    assert ahead >= 1 and 2 * workers + ahead < LAG


def test_an_epoch_shorter_than_the_lead() -> None:
    batches = BatchSampler(SequentialSampler(range(3)), 2, drop_last=False)
    assert [(part, part.later) for part in ReadAhead(batches, 8)] == [([0, 1], []), ([2], [])]
