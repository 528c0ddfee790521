"""The tensors on which the distances of a batch depend, and their gradients.

Shapes: B = anchors, A = anchors in a block, M = references, D = embedding size, R = rows of pairs, S = pairs in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion.block_size import cells_at_once
from metric_module.criterion.window_sum import PairSlopes
from metric_module.distances import Distance
from metric_module.functional import rows_of

Read = Callable[[Tensor | None], bool]
"""``read(unsure)`` reads a bool ``()`` from the device; None is False."""


class Sources:
    """The tensors on which the distances depend, and their gradients, which are added up block by block.

    Args:
        distance: The distance.
        tensors: Anchors ``(B, D)``, references ``(M, D)`` unless the anchors are their own, and parameters.
        own: Whether the anchors are their own references.
        wanted: Which of the tensors get a gradient.
    """

    def __init__(self, distance: Distance, tensors: Sequence[Tensor], own: bool, wanted: Sequence[bool]) -> None:
        self._other = 0 if own else 1  # position of the references among the tensors
        self.distance = distance
        self.query = tensors[0].detach()  # (B, D)
        self.reference = self.query if own else tensors[1].detach()  # (M, D)
        self.learnable = tensors[self._other + 1 :]
        self._tensors, self._wanted = tensors, wanted
        self._gradients: list[Tensor | None] = [None] * len(tensors)

    @property
    def needed(self) -> bool:
        """Whether any gradient is wanted."""
        return any(self._wanted)

    def gradients(self) -> list[Tensor]:
        """Gradients of the tensors that get one."""
        found = zip(self._gradients, self._tensors, self._wanted, strict=True)
        return [torch.zeros_like(tensor) if total is None else total for total, tensor, wanted in found if wanted]

    def distances(self, rows: slice, columns: slice, read: Read, gradient: bool) -> BlockDistances:
        """Compute the distances of some anchors to some references.

        Args:
            rows: The anchors.
            columns: The references.
            read: Reads whether some distances must be computed again.
            gradient: Whether :meth:`add` will follow.
        """
        with torch.set_grad_enabled(gradient):
            whole = rows == slice(0, len(self.query))
            query = (self.query if whole else self.query[rows]).requires_grad_(gradient)  # (A, D)
            same = self.reference is self.query and rows == columns
            reference = query if same else self.reference[columns].requires_grad_(gradient)  # (M, D)
            draft = self.distance.draft(query, reference)
            return BlockDistances(rows, columns, query, reference, draft.finish(read(draft.unsure)))

    def add(self, block: BlockDistances, slope: Tensor) -> None:
        """Add the gradient of a sum whose derivative by the distances is ``slope``, ``(A, M)``."""
        if not block.values.requires_grad:
            return
        inputs = [block.query, *([] if block.query is block.reference else [block.reference]), *self.learnable]
        parts = torch.autograd.grad(block.values, inputs, slope, allow_unused=True)
        own = block.query is block.reference
        if own and len(block.query) == len(self.query):
            self._gradients[0] = parts[0]  # the whole gradient in one block
        else:
            self._add(0, block.rows, parts[0])
        if not own:
            self._add(self._other, block.columns, parts[1])
        self._add_learnable(parts[1 if own else 2 :])

    def add_pairs(self, rows: slice, pairs: PairSlopes) -> None:
        """Add the gradient of a sum whose derivatives by single distances are known.

        Args:
            rows: The anchors to which the pairs refer.
            pairs: Pairs of anchors and references.
        """
        if not pairs.column.numel():
            return
        cells = pairs.column.shape[1] * self.query.shape[1]
        portion = max(1, cells_at_once(self.query.element_size(), self.query.device) // max(1, cells))
        for start in range(0, len(pairs.column), portion):
            part = slice(start, min(start + portion, len(pairs.column)))
            column, slope = rows_of(pairs.column, part), rows_of(pairs.slope, part)  # (R, S), (R, S)
            row: slice | Tensor = slice(rows.start + part.start, rows.start + part.stop)
            if pairs.row is not None:
                row = pairs.row[part] + rows.start  # (R,)
            query = self.query[row][:, None]  # (R, 1, D)
            place = column.reshape(-1)  # (R * S,)
            reference = self.reference.index_select(0, place).view(*column.shape, self.reference.shape[1])  # (R, S, D)
            parts = self.distance.paired_gradient(query, reference, slope, self.learnable)
            self._add(0, row, None if parts[0] is None else parts[0][:, 0])
            self._add(
                self._other, place, None if parts[1] is None else parts[1].reshape(len(place), parts[1].shape[-1])
            )
            self._add_learnable(parts[2:])

    def _add(self, place: int, rows: slice | Tensor, part: Tensor | None) -> None:
        """Add to the gradient of some rows of one of the tensors."""
        if part is None or not self._wanted[place]:
            return
        total = self._gradients[place]
        if total is None:
            total = self._gradients[place] = torch.zeros_like(self._tensors[place])
        if isinstance(rows, Tensor):
            total.index_add_(0, rows, part)
        else:
            rows_of(total, rows).add_(part)

    def _add_learnable(self, parts: Sequence[Tensor | None]) -> None:
        for place, part in enumerate(parts, start=self._other + 1):
            if part is not None and self._wanted[place]:
                total = self._gradients[place]
                self._gradients[place] = part.clone() if total is None else total.add_(part)


class BlockDistances(NamedTuple):
    """Distances of one block, and what they were computed from.

    Attributes:
        rows: The anchors.
        columns: The references.
        query: Embeddings of the anchors, ``(A, D)``.
        reference: Embeddings of the references, ``(M, D)``; the same tensor if they are the anchors.
        values: Distances ``(A, M)``, with a graph if their gradient is needed.
    """

    rows: slice
    columns: slice
    query: Tensor
    reference: Tensor
    values: Tensor
