"""Relations of queries and references in integer arrays: explicit lists, or shared labels.

Shapes: Q = queries, M = references, B = given queries, G = given references, L = labels, N = samples, n = links.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError


class Relation(ABC):
    """A relation that assigns references to queries, both by row number."""

    @abstractmethod
    def lists(self, rows: Tensor) -> Links:
        """List the references of the given queries.

        Args:
            rows: Queries, int64 ``(B,)``.

        Returns:
            Lists of the B queries, in order of ``rows``, each ascending.
        """

    @abstractmethod
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Mark which references belong to which queries.

        Args:
            rows: Queries, int64 ``(B,)``.
            columns: Different references, int64 ``(G,)``.

        Returns:
            Bool mask ``(B, G)``.
        """


class Links(Relation):
    """A list of references for each query, as compressed sparse rows.

    Args:
        starts: Start of the list of each query, and the end of the last, int64 ``(Q + 1,)``.
        columns: References, int64 ``(n,)``; ascending within a list, except where their order is that of time.

    Raises:
        UserError: If the arrays are not int64, or the starts do not ascend from 0 to n.

    Example:
        >>> likes = Links.of(torch.tensor([0, 2, 0]), torch.tensor([7, 5, 3]), queries=3)
        >>> [likes.list_of(row).tolist() for row in range(3)]
        [[3, 7], [], [5]]
        >>> likes.mask(torch.tensor([2, 0]), torch.tensor([3, 5])).tolist()
        [[False, True], [True, False]]
    """

    def __init__(self, starts: Tensor, columns: Tensor) -> None:
        self.starts, self.columns = starts, columns
        sound = starts.dtype == columns.dtype == torch.int64 and starts.ndim == columns.ndim == 1 and len(starts) > 0
        if not (sound and int(starts[0]) == 0 and int(starts[-1]) == len(columns) and bool((starts.diff() >= 0).all())):
            given = f"{starts.dtype} {list(starts.shape)} and {columns.dtype} {list(columns.shape)}"
            raise UserError(f"links: expected ascending int64 starts from 0 to the number of columns, got {given}")

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, queries: int) -> Links:
        """Build the lists from pairs in any order; a repeated pair counts once.

        Args:
            rows: Query of each pair, int64 ``(n,)``.
            columns: Reference of each pair, int64 ``(n,)``.
            queries: Number of queries, Q.

        Raises:
            UserError: If a row or column number is out of range.
        """
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < queries and int(columns.min()) >= 0):
            lowest = f"{int(rows.min())} to {int(rows.max())}, references from {int(columns.min())}"
            raise UserError(f"links: expected queries in [0, {queries}) and references from 0, got {lowest}")
        width = int(columns.max()) + 1 if len(columns) else 1
        pairs = torch.unique(rows * width + columns)  # (n,), ascending
        starts = torch.zeros(queries + 1, dtype=torch.int64, device=rows.device)
        starts[1:] = (pairs // width).bincount(minlength=queries).cumsum(0)
        return cls(starts, pairs % width)

    def __len__(self) -> int:
        """Number of queries, Q."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> Tensor:
        """Length of each list, int64 ``(Q,)``."""
        return self.starts.diff()

    def list_of(self, row: int) -> Tensor:
        """References of one query, int64."""
        return self.columns[int(self.starts[row]) : int(self.starts[row + 1])]

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Query and reference of every link, each int64 ``(n,)``."""
        return torch.repeat_interleave(self.sizes), self.columns

    def reverse(self, references: int) -> Links:
        """Build the lists of queries of each reference.

        Args:
            references: Number of references, M.

        Raises:
            UserError: If a link has a reference of M or above.
        """
        row, column = self.pairs()  # (n,), (n,)
        return Links.of(column, row, references)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Pad the lists: references ``(Q, K)``, 0 in empty places, and a mask of the filled places ``(Q, K)``."""
        sizes = self.sizes
        place = torch.arange(int(sizes.max()) if len(sizes) else 0, device=sizes.device)  # (K,)
        valid = place < sizes[:, None]  # (Q, K)
        columns = torch.zeros_like(valid, dtype=torch.int64)
        columns[valid] = self.columns
        return columns, valid

    @override
    def lists(self, rows: Tensor) -> Links:
        """Lists of the given queries."""
        sizes = self.sizes[rows]  # (B,)
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])  # (B + 1,)
        shift = torch.repeat_interleave(self.starts[rows] - starts[:-1], sizes)  # (n,)
        return Links(starts, self.columns[torch.arange(len(shift), device=rows.device) + shift])

    @override
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Mask of the references that belong to the queries, bool ``(B, G)``."""
        row, found = self.lists(rows).pairs()  # (n,), (n,)
        ordered, order = columns.sort()  # (G,), (G,)
        mask = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
        if len(columns):
            place = torch.searchsorted(ordered, found).clamp_(max=len(ordered) - 1)  # (n,)
            present = ordered[place] == found  # (n,)
            mask[row[present], order[place[present]]] = True
        return mask


class SharedLabels(Relation):
    """The relation of samples that share a label; a sample is not related to itself.

    The lists of queries are computed on demand, so that memory does not grow with the number of pairs.

    Args:
        labels: Links of N samples to L labels. Queries and references have the same row numbers.
        among: Rows of the samples that may be references, int64; None: all.

    Example:
        >>> labels = Links.of(torch.tensor([0, 0, 1, 2]), torch.tensor([4, 5, 5, 6]), queries=3)
        >>> SharedLabels(labels).lists(torch.tensor([0, 2])).sizes.tolist()
        [1, 0]
    """

    def __init__(self, labels: Links, among: Tensor | None = None) -> None:
        self.labels = labels
        sample, label = labels.pairs()  # (n,), (n,)
        if among is not None:
            allowed = torch.zeros(len(labels), dtype=torch.bool)
            allowed[among] = True
            sample, label = sample[allowed[sample]], label[allowed[sample]]
        self.count = int(labels.columns.max()) + 1 if len(labels.columns) else 1
        self._samples = Links.of(label, sample, self.count)

    @override
    def lists(self, rows: Tensor) -> Links:
        """Lists of the samples that share a label with the given ones."""
        place_of, label = self.labels.lists(rows).pairs()  # (n,), (n,)
        place, sample = self._samples.lists(label).pairs()  # (m,), (m,)
        query = place_of[place]  # (m,)
        other = sample != rows[query]  # (m,)
        return Links.of(query[other], sample[other], len(rows))

    @override
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Mask of different samples that share a label, bool ``(B, G)``."""
        first, second = (self._one_hot(samples) for samples in (rows, columns))  # (B, L), (G, L)
        return (first @ second.T > 0) & (rows[:, None] != columns)

    def _one_hot(self, samples: Tensor) -> Tensor:
        row, label = self.labels.lists(samples).pairs()  # (n,), (n,)
        hot = torch.zeros(len(samples), self.count)  # (B, L)
        hot[row, label] = 1.0
        return hot
