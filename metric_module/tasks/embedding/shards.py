"""Embeddings on disk: one shard for each process, and a merged view of all shards in order of id.

Shapes: B = samples of a batch, n = samples of a shard or block, R = rows of all shards, N = samples of all shards, each
once, D = embedding size, W = number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.distributed import gather_rows, row_counts
from metric_module.errors import UserError
from metric_module.functional import nonfinite_rows

BLOCK_BYTES = 1 << 24
"""Size of the embeddings in a block that :meth:`Shards.blocks` yields."""

BLOCK_ROWS = 1 << 16
"""Most samples in a block: their names are Python strings for a moment."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Block(NamedTuple):
    """Consecutive samples in order of id."""

    ids: Integers  # (n,)
    labels: Integers  # (n,)
    embeddings: Floats  # (n, D)


class ShardWriter(BasePredictionWriter):
    """Callback that writes one process's shard, batch by batch: a file of ids and labels, and one of embeddings.

    Both files are hidden. Each process creates and removes only its own, so processes cannot disturb each other.

    Args:
        folder: Folder of the files; all processes use the folder of rank 0.
        encoder: Name of the encoder, for messages.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        super().__init__("batch")
        self.folder = folder
        self._encoder = encoder
        self._paths: Sequence[Path] = ()
        self._files: list[BinaryIO] = []
        self._seen = 0
        self._bad: list[Tensor] = []

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the files of this process."""
        self.folder = trainer.strategy.broadcast(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._paths = shard_paths(self.folder, trainer.global_rank)
        for path in self._paths:
            self._files.append(path.open("wb"))

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append one batch.

        Raises:
            UserError: If there are several processes and the batch has no ids, if the number of embeddings differs
                from the number of labels, or, on a single process, if an embedding is NaN or infinite.
        """
        if trainer.world_size > 1 and len(batch) != 3:
            raise UserError("batch: expected (inputs, labels, index) on several processes, got a batch without index")
        _, labels, index = unpack(batch, self._seen)
        embeddings = prediction.float().cpu()  # (B, D)
        if len(labels) != len(embeddings):
            got = f"{len(embeddings)} for {len(labels)} labels"
            raise UserError(f"{self._encoder}: expected one embedding per label, got {got}")
        self._seen += len(labels)
        id_label_file, embedding_file = self._files
        id_label_file.write(torch.stack([index, labels], dim=1).cpu().contiguous().numpy().data)  # (B, 2)
        embedding_file.write(embeddings.contiguous().numpy().data)
        self._bad.append(index.cpu()[nonfinite_rows(embeddings)])
        if trainer.world_size == 1:  # several processes stop together at the end
            self._reject(self._bad[-1])

    @override
    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the files, wait for the other processes, and reject NaN and infinity on all of them.

        Raises:
            UserError: If an embedding of any process is NaN or infinite.
        """
        for file in self._files:
            file.close()
        bad = torch.cat([torch.zeros(0, dtype=torch.int64), *self._bad]).to(pl_module.device)  # (n,)
        self._reject(torch.unique(gather_rows(bad, row_counts(bad))))  # once all processes have closed their files

    def _reject(self, bad: Tensor) -> None:
        """Raise an error if there are ids ``(n,)`` of embeddings with NaN or infinity."""
        if len(bad):
            raise UserError(
                f"{self._encoder}: NaN or infinity in {len(bad)} embeddings, sample ids {bad[:5].tolist()}; "
                "look at these inputs"
            )

    def remove(self) -> None:
        """Remove the files of this process."""
        for file in self._files:
            file.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


class Shards:
    """Merged view of the shards of all processes: each sample once, in order of id.

    Ids and labels are in memory, 32 bytes per sample while they are sorted; embeddings are read block by block.

    Args:
        folder: Folder of the shards.
        world_size: Number of processes.

    Attributes:
        width: Size D of an embedding.
        ids: Id of each sample, ascending, int64 ``(N,)``.
        labels: Class of each sample, int64 ``(N,)``.

    Raises:
        UserError: If there are no samples, or one id has two labels.
    """

    def __init__(self, folder: Path, world_size: int) -> None:
        paths = [shard_paths(folder, rank) for rank in range(world_size)]
        parts = [np.fromfile(path, np.int64).reshape(-1, 2) for path, _ in paths]
        self._rows = [path for _, path in paths]  # files of embeddings
        self._starts = np.cumsum([0, *map(len, parts)])  # (W + 1,), first row of each shard
        ids_labels = np.concatenate(parts)  # (R, 2)
        if not len(ids_labels):
            raise UserError("data: expected at least one sample to embed, got none")
        self.width = sum(path.stat().st_size for path in self._rows) // (4 * len(ids_labels))
        order = np.argsort(ids_labels[:, 0], kind="stable")  # (R,)
        ids_labels = ids_labels[order]
        is_first = np.ones(len(order), dtype=bool)  # (R,) False for a sample that a sampler repeated as padding
        is_first[1:] = ids_labels[1:, 0] != ids_labels[:-1, 0]
        conflicts = np.flatnonzero(~is_first[1:] & (ids_labels[1:, 1] != ids_labels[:-1, 1]))
        if len(conflicts):
            (id, label), other = ids_labels[conflicts[0]].tolist(), int(ids_labels[conflicts[0] + 1, 1])
            raise UserError(f"ids: expected one label for each id, got labels {label} and {other} for id {id}")
        self._order, ids_labels = order[is_first], ids_labels[is_first]  # (N,), (N, 2)
        self.ids, self.labels = ids_labels[:, 0], ids_labels[:, 1]  # (N,), (N,)

    def blocks(self) -> Iterator[Block]:
        """Yield all samples, about 16 MB of embeddings and at most 65,536 samples at a time."""
        step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * max(1, self.width))))
        for start in range(0, len(self.ids), step):
            part = slice(start, start + step)
            yield Block(self.ids[part], self.labels[part], self._embeddings(self._order[part]))

    def _embeddings(self, rows: Integers) -> Floats:
        """Read the embeddings ``(n, D)`` in the given rows ``(n,)`` of the concatenated shards."""
        embeddings = np.empty((len(rows), self.width), np.float32)
        for path, start, stop in zip(self._rows, self._starts[:-1], self._starts[1:], strict=True):
            in_shard = (rows >= start) & (rows < stop)  # (n,)
            if in_shard.any():
                # A new map for each block, so that pages already read do not stay in memory.
                embeddings[in_shard] = np.memmap(path, np.float32, "r").reshape(-1, self.width)[rows[in_shard] - start]
        return embeddings


def shard_paths(folder: Path, rank: int) -> tuple[Path, Path]:
    """Return the two files of one process: ids and labels, int64 ``(n, 2)``, and embeddings, float32 ``(n, D)``."""
    return folder / f".shard_{rank:05d}.numbers", folder / f".shard_{rank:05d}.rows"
