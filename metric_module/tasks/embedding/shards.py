"""Embeddings on their way to one file: each process writes its share as it reads, and the shares are put in order.

Legend: B samples of a batch, n samples of a share or of a block, N samples in all, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metric_module.errors import UserError

BLOCK_BYTES = 1 << 24

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Block(NamedTuple):
    """Some samples in a row, in order of id."""

    ids: Integers  # (n,)
    labels: Integers  # (n,)
    embeddings: Floats  # (n, D)


class ShareWriter:
    """Appends the batches of one process to two plain files, and holds none of them.

    Use it as a context: if the block inside fails, the files go.

    Args:
        folder: Where; it is made.
        rank: The process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = numbers_path(folder, rank), rows_path(folder, rank)
        self._files = tuple(path.open("wb") for path in self._paths)

    def append(self, ids: Tensor, labels: Tensor, embeddings: Tensor) -> None:
        """Write a batch.

        Args:
            ids: Int64 ``(B,)``.
            labels: Int64 ``(B,)``.
            embeddings: Floating point ``(B, D)``; kept as float32.
        """
        numbers, rows = self._files
        numbers.write(torch.stack([ids, labels], dim=1).cpu().contiguous().numpy().data)  # (B, 2)
        rows.write(embeddings.detach().float().cpu().contiguous().numpy().data)  # (B, D)

    def flush(self) -> None:
        """Make what was written so far visible to other processes."""
        for file in self._files:
            file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        if kind is not None:
            for path in self._paths:
                path.unlink(missing_ok=True)


class Shares:
    """The shares of all processes as one set: each sample once, in order of id.

    Ids and labels are in memory, 32 bytes a sample while they are put in order; embeddings are read block by block.

    Args:
        folder: Where the shares are.
        ranks: How many there are.

    Raises:
        UserError: If there are no samples, or one id has two labels.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        parts = [np.fromfile(numbers_path(folder, rank), np.int64).reshape(-1, 2) for rank in range(ranks)]
        self._starts = np.cumsum([0, *map(len, parts)])  # (W + 1,), where the rows of each share begin
        numbers = np.concatenate(parts)  # (n, 2)
        del parts
        if not len(numbers):
            raise UserError("embed: expected at least one sample, got none")
        self._paths = [rows_path(folder, rank) for rank in range(ranks)]
        self.width = sum(path.stat().st_size for path in self._paths) // (4 * len(numbers))
        order = np.argsort(numbers[:, 0], kind="stable")  # (n,)
        numbers = numbers[order]
        first = np.ones(len(order), dtype=bool)  # what a sampler pads comes again, and is dropped
        first[1:] = numbers[1:, 0] != numbers[:-1, 0]
        clash = np.flatnonzero(~first[1:] & (numbers[1:, 1] != numbers[:-1, 1]))
        if len(clash):
            (id, label), other = numbers[clash[0]].tolist(), int(numbers[clash[0] + 1, 1])
            raise UserError(f"ids: expected one label for each id, got labels {label} and {other} for id {id}")
        self._order, numbers = order[first], numbers[first]  # (N,), (N, 2)
        self.ids, self.labels = numbers[:, 0], numbers[:, 1]  # (N,), (N,)

    def blocks(self) -> Iterator[Block]:
        """Everything, some 16 MB at a time."""
        step = max(1, BLOCK_BYTES // (4 * max(1, self.width)))
        for start in range(0, len(self.ids), step):
            part = slice(start, start + step)
            yield Block(self.ids[part], self.labels[part], self._rows(self._order[part]))

    def _rows(self, places: Integers) -> Floats:
        """The embeddings at some places of the shares put end to end, ``(n, D)``."""
        rows = np.empty((len(places), self.width), np.float32)
        for path, start, stop in zip(self._paths, self._starts[:-1], self._starts[1:], strict=True):
            mine = (places >= start) & (places < stop)  # (n,)
            if mine.any():
                # Mapped anew for each block, so that pages that were read do not stay.
                share = np.memmap(path, np.float32, "r").reshape(-1, self.width)
                rows[mine] = share[places[mine] - start]
        return rows


def numbers_path(folder: Path, rank: int) -> Path:
    """The file of ids and labels of a process."""
    return folder / f"{rank:05d}.numbers"


def rows_path(folder: Path, rank: int) -> Path:
    """The file of embeddings of a process."""
    return folder / f"{rank:05d}.rows"
