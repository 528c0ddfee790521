"""Shards of several processes, merged in order of id and written to one file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from torch import Tensor

from metric_module import Batch, UserError
from metric_module.tasks.embedding.formats import write_file
from metric_module.tasks.embedding.names import Naming
from metric_module.tasks.embedding.shards import Shards, ShardWriter
from tests.helpers.blocks import small_blocks

MODULE: Any = SimpleNamespace(device="cpu")


def write_shard(folder: Path, rank: int, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> ShardWriter:
    """Write batches of ids, labels and embeddings as one process."""
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(broadcast=lambda value: value), global_rank=rank, world_size=1
    )
    writer = ShardWriter(folder, "Encoder")
    writer.on_predict_start(trainer, MODULE)
    try:
        for ids, labels, embeddings in batches:
            writer.write_on_batch_end(trainer, MODULE, embeddings, None, Batch(None, labels, ids), 0, 0)
        writer.on_predict_epoch_end(trainer, MODULE)
    except UserError:
        writer.remove()  # as the task does, which closes the files
        raise
    return writer


def write(folder: Path, *ids_of_processes: list[int]) -> Shards:
    """Shards of some ids, whose labels are three times and whose embeddings are the ids themselves."""
    for rank, ids in enumerate(ids_of_processes):
        index = torch.tensor(ids, dtype=torch.int64)
        write_shard(folder, rank, [(index, 3 * index, torch.stack([index, -index], dim=1).double())])
    return Shards(folder, len(ids_of_processes))


def test_in_order_of_id_and_each_once(tmp_path: Path) -> None:
    shards = write(tmp_path, [8, 2, 2**53 + 1], [], [-7, 8, 5, 1])
    with small_blocks(shard_bytes=24):  # three rows
        blocks = list(shards.blocks())
    assert [len(block.ids) for block in blocks] == [3, 3]
    assert np.concatenate([block.ids for block in blocks]).tolist() == [-7, 1, 2, 5, 8, 2**53 + 1]
    assert (shards.labels == 3 * shards.ids).all()
    rows = np.concatenate([block.embeddings for block in blocks])
    assert rows.dtype == np.float32 and rows[:5].tolist() == [[7 * -1, 7], [1, -1], [2, -2], [5, -5], [8, -8]]


def test_one_label_for_each_id_and_one_sample_at_least(tmp_path: Path) -> None:
    write(tmp_path, [4, 5], [6])
    write_shard(tmp_path, 1, [(torch.tensor([5]), torch.tensor([16]), torch.zeros(1, 2))])
    with pytest.raises(UserError, match="expected one label for each id, got labels 15 and 16 for id 5"):
        Shards(tmp_path, 2)
    with pytest.raises(UserError, match="data: expected at least one sample to embed, got none"):
        write(tmp_path, [], [])


def test_a_single_process_stops_at_the_first_bad_batch(tmp_path: Path) -> None:
    batches = [
        (torch.tensor([id]), torch.tensor([0]), torch.full((1, 2), value)) for id, value in ((3, 1.0), (4, torch.nan))
    ]
    with pytest.raises(UserError, match=r"Encoder: NaN or infinity in 1 embeddings, sample ids \[4\]"):
        write_shard(tmp_path, 0, [*batches, (torch.tensor([5]), torch.tensor([0, 0]), torch.zeros(1, 2))])


def test_a_process_removes_its_own_files_alone(tmp_path: Path) -> None:
    write(tmp_path, [1], [2])
    write_shard(tmp_path, 1, []).remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shard_00000.numbers", ".shard_00000.rows"]


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_memory_is_that_of_a_block(tmp_path: Path, kind: str) -> None:
    """20 MB of embeddings, written with a fraction of it: numpy's allocations are traced."""
    naming = Naming(LightningDataModule(), "test")
    write_file(tmp_path / "first", kind, write(tmp_path, [1]), naming, "Euclidean", None)  # imports are not counted
    rows, width = 20_000, 256
    starts = [torch.arange(start, start + 1000) for start in range(0, rows, 1000)]
    write_shard(tmp_path, 0, [(ids, ids, ids[:, None].expand(-1, width).float()) for ids in starts])
    tracemalloc.start()
    with small_blocks(shard_bytes=1 << 19):
        write_file(tmp_path / "file", kind, Shards(tmp_path, 1), naming, "Euclidean", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "file").stat().st_size > 4 * rows * width
    assert peak < 4 * rows * width / 5
