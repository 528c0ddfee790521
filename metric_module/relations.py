"""Which references belong to which query, in integer arrays: lists, or labels in common.

Shapes: Q = queries, M = references, B = queries at hand, G = references at hand, L = labels, n = links.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError


class Relation(ABC):
    """Says of queries, by row, which references belong to them, by row."""

    @abstractmethod
    def lists(self, rows: Tensor) -> Links:
        """The references of some queries.

        Args:
            rows: Queries, int64 ``(B,)``.

        Returns:
            Lists of B queries, in order of ``rows``, each ascending.
        """

    @abstractmethod
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether a reference belongs to a query, bool ``(B, G)``.

        Args:
            rows: Queries, int64 ``(B,)``.
            columns: Different references, int64 ``(G,)``.
        """


class Links(Relation):
    """A list of references for each query, one after the other: compressed sparse rows.

    Args:
        starts: Where the list of each query starts, and where the last ends, int64 ``(Q + 1,)``.
        columns: The references, ascending within a list, int64 ``(n,)``.

    Raises:
        UserError: If the arrays are no such lists.

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
            told = f"{starts.dtype} {list(starts.shape)} and {columns.dtype} {list(columns.shape)}"
            raise UserError(f"links: expected ascending int64 starts from 0 to the number of columns, got {told}")

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, queries: int) -> Links:
        """Lists from pairs in any order; a pair that comes twice counts once.

        Args:
            rows: The query of each pair, int64 ``(n,)``.
            columns: Its reference, int64 ``(n,)``.
            queries: Q.

        Raises:
            UserError: If a number is out of range.
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
        """The references of one query."""
        return self.columns[int(self.starts[row]) : int(self.starts[row + 1])]

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Query and reference of every link, int64 ``(n,)`` each."""
        return torch.repeat_interleave(self.sizes), self.columns

    def reverse(self, references: int) -> Links:
        """Lists of queries for each of so many references.

        Args:
            references: M.

        Raises:
            UserError: If there are links to more than these.
        """
        row, column = self.pairs()  # (n,), (n,)
        return Links.of(column, row, references)

    def padded(self) -> tuple[Tensor, Tensor]:
        """The lists side by side: references ``(Q, K)``, any where there is none, and whether there is one."""
        sizes = self.sizes
        place = torch.arange(int(sizes.max()) if len(sizes) else 0, device=sizes.device)  # (K,)
        valid = place < sizes[:, None]  # (Q, K)
        columns = torch.zeros_like(valid, dtype=torch.int64)
        columns[valid] = self.columns
        return columns, valid

    @override
    def lists(self, rows: Tensor) -> Links:
        """The lists of some queries."""
        sizes = self.sizes[rows]  # (B,)
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])  # (B + 1,)
        shift = torch.repeat_interleave(self.starts[rows] - starts[:-1], sizes)  # (n,)
        return Links(starts, self.columns[torch.arange(len(shift), device=rows.device) + shift])

    @override
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether a reference belongs to a query, bool ``(B, G)``."""
        row, found = self.lists(rows).pairs()  # (n,), (n,)
        ordered, order = columns.sort()  # (G,), (G,)
        mask = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
        if len(columns):
            place = torch.searchsorted(ordered, found).clamp_(max=len(ordered) - 1)  # (n,)
            known = ordered[place] == found  # (n,)
            mask[row[known], order[place[known]]] = True
        return mask


class SharedLabels(Relation):
    """A reference belongs to a query if the two have a label in common; a sample never belongs to itself.

    Nothing of the size of all pairs is kept: the lists of some queries are put together when they are asked for.

    Args:
        labels: Labels of every sample, Links of N samples to L labels. Queries and references are numbered alike.
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
        """The samples that have a label in common with each of some."""
        asked, label = self.labels.lists(rows).pairs()  # (n,), (n,)
        place, sample = self._samples.lists(label).pairs()  # (m,), (m,)
        query = asked[place]  # (m,)
        other = sample != rows[query]  # (m,)
        return Links.of(query[other], sample[other], len(rows))

    @override
    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether two samples have a label in common and are not the same, bool ``(B, G)``."""
        first, second = (self._one_hot(samples) for samples in (rows, columns))  # (B, L), (G, L)
        return (first @ second.T > 0) & (rows[:, None] != columns)

    def _one_hot(self, samples: Tensor) -> Tensor:
        row, label = self.labels.lists(samples).pairs()  # (n,), (n,)
        hot = torch.zeros(len(samples), self.count)  # (B, L)
        hot[row, label] = 1.0
        return hot
