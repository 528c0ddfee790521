"""Shares of several processes on their way to one file."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from metric_module import UserError
from metric_module.tasks.embedding.formats import write_npz, write_parquet
from metric_module.tasks.embedding.names import class_names
from metric_module.tasks.embedding.shards import Shares, ShareWriter
from tests.helpers.blocks import small_blocks


def write(folder: Path, *shares: list[int]) -> Shares:
    """Shares of some ids, whose labels are three times and whose embeddings are the ids themselves."""
    for rank, ids in enumerate(shares):
        index = torch.tensor(ids, dtype=torch.int64)
        with ShareWriter(folder, rank) as writer:
            writer.append(index, 3 * index, torch.stack([index, -index], dim=1).double())
    return Shares(folder, len(shares))


def test_in_order_of_id_and_each_once(tmp_path: Path) -> None:
    shares = write(tmp_path, [8, 2, 2**53 + 1], [], [-7, 8, 5, 1])
    with small_blocks(shard_bytes=24):  # three rows
        blocks = list(shares.blocks())
    assert [len(block.ids) for block in blocks] == [3, 3]
    assert np.concatenate([block.ids for block in blocks]).tolist() == [-7, 1, 2, 5, 8, 2**53 + 1]
    assert (shares.labels == 3 * shares.ids).all()
    rows = np.concatenate([block.embeddings for block in blocks])
    assert rows.dtype == np.float32 and rows[:5].tolist() == [[7 * -1, 7], [1, -1], [2, -2], [5, -5], [8, -8]]


def test_one_label_for_each_id_and_one_sample_at_least(tmp_path: Path) -> None:
    write(tmp_path, [4, 5], [6])
    with ShareWriter(tmp_path, 1) as writer:
        writer.append(torch.tensor([5]), torch.tensor([16]), torch.zeros(1, 2))
    with pytest.raises(UserError, match="expected one label for each id, got labels 15 and 16 for id 5"):
        Shares(tmp_path, 2)
    with pytest.raises(UserError, match="embed: expected at least one sample, got none"):
        write(tmp_path, [], [])


def test_a_share_that_fails_goes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in between"), ShareWriter(tmp_path, 0):
        raise RuntimeError("in between")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write_file", [write_npz, write_parquet])
def test_memory_is_that_of_a_block(tmp_path: Path, write_file: object) -> None:
    """20 MB of embeddings, written with a fraction of it: numpy's allocations are traced."""
    write_file(tmp_path / "first", write(tmp_path, [1]))  # type: ignore[operator]  # what it imports is not counted
    rows, width = 20_000, 256
    with ShareWriter(tmp_path, 0) as writer:
        for start in range(0, rows, 1000):
            ids = torch.arange(start, start + 1000)
            writer.append(ids, ids, torch.full((1000, width), float(start)))
    tracemalloc.start()
    with small_blocks(shard_bytes=1 << 19):
        write_file(tmp_path / "file", Shares(tmp_path, 1))  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "file").stat().st_size > 4 * rows * width
    assert peak < 4 * rows * width / 5


def test_names_only_where_labels_can_be_an_index() -> None:
    class Named:
        def class_names_of(self, ids: list[int]) -> list[str]:
            return [f"of {id}" for id in ids]

    ids = np.array([3, 4, 9])
    assert class_names(Named(), ids, np.array([2, 0, 2])) == ["of 4", "", "of 3"]
    assert class_names(object(), ids, np.array([2, 0, 2])) is None
    assert class_names(Named(), ids, np.array([2, -1, 2])) is None
    assert class_names(Named(), ids, np.array([2, 2**53 + 1, 2])) is None
