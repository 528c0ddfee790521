"""Retrieval figures collected batch by batch, over every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.inputs import check_cutoffs, check_items
from metric_module.evaluation.retrieval import retrieval_metrics


class Gathered(NamedTuple):
    """Every sample once, in order of id."""

    embeddings: Tensor  # (N, D)
    labels: Tensor  # (N,) int64
    ids: Tensor  # (N,) int64
    groups: Tensor | None  # (N,) int64


class RetrievalMetric(Metric):
    """:func:`retrieval_metrics` over all batches of all processes, each sample once.

    Samples are told apart by their ids: what a sampler pads is dropped, and figures do not depend on the order in which
    batches come. Call :meth:`update` for each batch and :meth:`compute` at the end.

    Args:
        distance: The distance; None is Euclidean. It stays where its owner keeps it, outside this metric's state.
        recall_at: The values of k in ``recall_at_k``.

    Raises:
        UserError: If a value of ``recall_at`` is not a positive integer.

    Example:
        >>> metric = RetrievalMetric(recall_at=(1,))
        >>> metric.update(torch.tensor([[0.0], [3.0]]), torch.tensor([7, 8]), torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([[1.0], [9.0]]), torch.tensor([7, 8]), torch.tensor([2, 3]))
        >>> metric.compute()["recall_at_1"]
        0.75
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embeddings: list[Tensor]
    labels: list[Tensor]
    ids: list[Tensor]
    groups: list[Tensor]

    def __init__(self, distance: Distance | None = None, recall_at: Sequence[int] = (1, 5, 10)) -> None:
        # compute() calls gathered(), which brings the processes together once for both.
        super().__init__(sync_on_compute=False)
        self._distance = (distance,)  # in a tuple, or torch would make it a part of this module
        self.recall_at = check_cutoffs(recall_at)
        self._grouped: bool | None = None
        self._gathered: Gathered | None = None
        for name in ("embeddings", "labels", "ids", "groups"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @override
    def update(self, embeddings: Tensor, labels: Tensor, ids: Tensor, groups: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            embeddings: Rows ``(B, D)``.
            labels: Integers ``(B,)``.
            ids: Integers ``(B,)``: which sample of the data set each row is.
            groups: Integers ``(B,)``. In every batch or in none.

        Raises:
            UserError: If a shape, type or number is wrong, or only some batches have groups.
        """
        items = check_items(embeddings, labels, ids, groups)
        if self._grouped is not None and self._grouped != (groups is not None):
            now, before = ("given", "not") if groups is not None else ("missing", "given")
            raise UserError(f"groups: expected them in every batch or in none, got them {now} here, {before} before")
        self._grouped, self._gathered = groups is not None, None
        self.embeddings.append(items.embeddings)
        self.labels.append(items.labels)
        self.ids.append(ids.detach().to(items.labels))
        self.groups.append(torch.zeros_like(items.labels) if items.groups is None else items.groups)

    @override
    def compute(self) -> dict[str, float]:
        """The figures of :func:`retrieval_metrics` over everything that was taken in.

        Returns:
            The figures. If there are groups also those across groups, under the same names after ``cross_group_``.

        Raises:
            UserError: If nothing was taken in, no query has a positive, or one id has two labels.
        """
        embeddings, labels, ids, groups = self.gathered()
        distance = self._distance[0]
        figures = retrieval_metrics(embeddings, labels, ids, distance=distance, recall_at=self.recall_at)
        if groups is not None:
            across = retrieval_metrics(
                embeddings, labels, ids, groups=groups, distance=distance, recall_at=self.recall_at
            )
            figures |= {f"cross_group_{name}": value for name, value in across.items()}
        return figures

    def gathered(self) -> Gathered:
        """What all processes took in, each sample once, in order of id.

        Every process must call this or :meth:`compute`; the second call uses what the first brought together.

        Returns:
            Embeddings ``(N, D)``, labels, ids and groups ``(N,)``.

        Raises:
            UserError: If nothing was taken in, or one id has two labels.
        """
        if self._gathered is None:
            if not self.ids:
                raise UserError("RetrievalMetric: expected at least one batch, got none; call update() first")
            synced = self._is_synced
            self.sync(dist_sync_fn=self.dist_sync_fn, should_sync=not synced)
            try:
                self._gathered = self._each_once()
            finally:
                self.unsync(should_unsync=self._is_synced and not synced)
        return self._gathered

    @override
    def forward(self, embeddings: Tensor, labels: Tensor, ids: Tensor, groups: Tensor | None = None) -> None:
        """Refuse: figures are of a whole set, never of a batch.

        Raises:
            UserError: Always.
        """
        raise UserError("RetrievalMetric: call update() for each batch and compute() at the end, not the metric itself")

    @override
    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self._grouped, self._gathered = None, None

    def _each_once(self) -> Gathered:
        """The state sorted by id, the first of equal ids kept."""
        ids, order = torch.sort(dim_zero_cat(self.ids), stable=True)  # (N,), (N,)
        labels = dim_zero_cat(self.labels)[order]  # (N,)
        again = torch.zeros_like(ids, dtype=torch.bool)  # (N,)
        again[1:] = ids[1:] == ids[:-1]
        clash = (again[1:] & (labels[1:] != labels[:-1])).nonzero().flatten()
        if len(clash):
            at = int(clash[0])
            pair = f"{int(labels[at])} and {int(labels[at + 1])}"
            raise UserError(f"ids: expected one label for each id, got labels {pair} for id {int(ids[at])}")
        kept = order[~again]
        groups = dim_zero_cat(self.groups)[kept] if self._grouped else None
        return Gathered(dim_zero_cat(self.embeddings)[kept], labels[~again], ids[~again], groups)
