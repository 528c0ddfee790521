"""Ids for batches without ids: positions in the data set, on one process and on several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Sampler, TensorDataset

from datamodules.sampling.pk_sampler import ShardedSampler
from metric_module import UserError
from metric_module.sample_ids import SampleIds, flat_loaders, positions

DATA = TensorDataset(torch.zeros(11, 2), torch.arange(11))


class Backwards(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10, -1, -1))

    def __len__(self) -> int:
        return 11


class Drawn(Backwards):
    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(11).tolist())


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(DATA)


def ids(loader: Any, by_id: bool = False) -> list[int]:
    numbered = SampleIds(loader, by_id)
    return [id for number, batch in enumerate(loader) for id in numbered.of_batch(number, len(batch[1])).tolist()]


def wrapped(rank: int, kind: type[Any], of: Any) -> DataLoader[Any]:
    sampler = kind(of, num_replicas=2, rank=rank, shuffle=False)
    return DataLoader(DATA, batch_size=4, sampler=sampler)


@pytest.mark.parametrize(("kind", "of"), [(DistributedSampler, DATA), (DistributedSamplerWrapper, Backwards())])
def test_two_processes_number_each_sample_by_its_position(
    kind: type[Any], of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metric_module.sample_ids.world_size", lambda: 2)
    for rank in (0, 1):
        loader = wrapped(rank, kind, of)
        seen = [label for batch in loader for label in batch[1].tolist()]
        assert ids(loader) == seen and len(seen) == 6, "padding has the id of the sample it repeats"


def test_loaders_that_shard_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.sample_ids.world_size", lambda: 2)
    assert ids(DataLoader(DATA, batch_size=4, sampler=ShardedSampler(11, 1, 2))) == [1, 3, 5, 7, 9, 0]
    assert ids(DataLoader(DATA, batch_size=4)) == list(range(11)), "every process has the whole set"
    assert ids(DataLoader(Stream(), batch_size=4)) == list(range(11))
    assert ids(list(DataLoader(DATA, batch_size=4))) == list(range(11))


def test_facts_by_id_need_the_position() -> None:
    loader = DataLoader(DATA, batch_size=4, sampler=Backwards())
    assert ids(loader) == list(range(11))
    assert ids(loader, by_id=True) == list(range(10, -1, -1))
    assert ids(DataLoader(Stream(), batch_size=4), by_id=True) == list(range(11))


@pytest.mark.parametrize("sampler", [None, Drawn()])
def test_a_shuffled_loader_has_no_positions(sampler: Any) -> None:
    loader = DataLoader(DATA, batch_size=4, sampler=sampler, shuffle=None if sampler else True)
    before = torch.get_rng_state()
    assert positions(loader) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert ids(loader) == list(range(11))
    with pytest.raises(UserError, match=r"expected \(inputs, labels, index\), as the data module has groups, queries"):
        ids(loader, by_id=True)


def test_a_batch_of_another_size_than_was_drawn_is_named() -> None:
    numbered = SampleIds(DataLoader(DATA, batch_size=4), by_id=True)
    with pytest.raises(UserError, match=r"expected 4 samples, as many as the sampler drew, got 3 in batch 0; yield"):
        numbered.of_batch(0, 3)


def test_loaders_of_any_collection() -> None:
    assert flat_loaders(None) == [] and flat_loaders([[1], [2]]) == [[1], [2]]
