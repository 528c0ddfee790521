"""Embeddings collected batch by batch, over every process; what is made of them is each metric's own."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.inputs import check_items
from metric_module.evaluation.relation_retrieval import Sought


class Gathered(NamedTuple):
    """Every sample once, in order of id."""

    embeddings: Tensor  # (N, D)
    labels: Tensor  # (N,) int64
    ids: Tensor  # (N,) int64
    groups: Tensor | None  # (N,) int64
    queries: Tensor | None  # (N,) bool: a query, or else an item of the gallery


class EmbeddingMetric(Metric):
    """Figures of a whole set of embeddings, each sample once; a subclass says which in :meth:`figures`.

    Samples are told apart by their ids: what a sampler pads is dropped, and figures do not depend on the order in which
    batches come. Call :meth:`update` for each batch and :meth:`compute` at the end.

    Args:
        distance: The distance; None is Euclidean. It stays where its owner keeps it, outside this metric's state.

    Attributes:
        threshold: A distance up to which two samples count as the same, found on other data; None if there is none.
        pairs: Pairs of ids that verification looks at, int64 ``(P, 2)``; None is all pairs.
        folds: Which fold each pair is of, int64 ``(P,)``; None is none.
        sought: Which samples are looked for from which, in data of pairs; None in data of classes.
    """

    by_pairs = False  # whether figures are of what is sought, and not of classes

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embeddings: list[Tensor]
    labels: list[Tensor]
    ids: list[Tensor]
    groups: list[Tensor]
    queries: list[Tensor]

    def __init__(self, distance: Distance | None = None) -> None:
        # compute() calls gathered(), which brings the processes together once for all.
        super().__init__(sync_on_compute=False)
        self._distance = (distance,)  # in a tuple, or torch would make it a part of this module
        self.threshold: float | None = None
        self.pairs: Tensor | None = None
        self.folds: Tensor | None = None
        self.sought: Sought | None = None
        self._optional: dict[str, bool] | None = None
        self._gathered: Gathered | None = None
        for name in ("embeddings", "labels", "ids", "groups", "queries"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @property
    def distance(self) -> Distance | None:
        """The distance; None is Euclidean."""
        return self._distance[0]

    @abstractmethod
    def figures(self, samples: Gathered) -> dict[str, float]:
        """The figures by name.

        Every process calls this with the same samples, and must get the same figures.

        Args:
            samples: Every sample of all processes.
        """

    @override
    def update(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ids: Tensor,
        groups: Tensor | None = None,
        queries: Tensor | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            embeddings: Rows ``(B, D)``.
            labels: Integers ``(B,)``.
            ids: Integers ``(B,)``: which sample of the data set each row is.
            groups: Integers ``(B,)``. In every batch or in none.
            queries: Bools ``(B,)``: whether a sample is a query, or else an item of the gallery. In every batch or in
                none; without them every sample is both.

        Raises:
            UserError: If a shape, type or number is wrong, or only some batches have groups or queries.
        """
        items = check_items(embeddings, labels, ids, groups)
        given = {"groups": groups is not None, "queries": queries is not None}
        for name, now in given.items():
            if self._optional is not None and self._optional[name] != now:
                told = ("given", "not") if now else ("missing", "given")
                raise UserError(
                    f"{name}: expected them in every batch or in none, got them {told[0]} here, {told[1]} before"
                )
        if queries is not None and (queries.dtype != torch.bool or queries.shape != labels.shape):
            raise UserError(
                f"queries: expected a bool tensor of shape [{len(labels)}], got {tuple(queries.shape)} {queries.dtype}"
            )
        self._optional, self._gathered = given, None
        empty = torch.zeros_like(items.labels)
        self.embeddings.append(items.embeddings)
        self.labels.append(items.labels)
        self.ids.append(ids.detach().to(items.labels))
        self.groups.append(empty if items.groups is None else items.groups)
        self.queries.append((empty if queries is None else queries).to(items.labels.device).bool())

    @override
    def compute(self) -> dict[str, float]:
        """The figures of everything that was taken in; every process must call it.

        Raises:
            UserError: If nothing was taken in, one id has two labels, or the samples do not allow the figures.
        """
        self.check_sought()
        return self.figures(self.gathered())

    def check_sought(self) -> None:
        """Accept data of classes, or of pairs, whichever the figures are of.

        Raises:
            UserError: If the data is of the other kind.
        """
        if (self.sought is not None) != self.by_pairs:
            name = type(self).__name__
            told = (
                "looks for pairs, and this data has classes; give evaluation=retrieval"
                if self.by_pairs
                else "looks at classes, and this data has pairs; give evaluation=pair_retrieval"
            )
            raise UserError(f"evaluation: {name} {told}")

    def gathered(self) -> Gathered:
        """What all processes took in, each sample once, in order of id.

        Every process must call this or :meth:`compute`; the second call uses what the first brought together.

        Returns:
            Embeddings ``(N, D)``, labels, ids, groups and queries ``(N,)``.

        Raises:
            UserError: If nothing was taken in, or one id has two labels.
        """
        if self._gathered is None:
            if not self.ids:
                name = type(self).__name__
                raise UserError(f"{name}: expected at least one batch, got none; call update() first")
            synced = self._is_synced
            self.sync(dist_sync_fn=self.dist_sync_fn, should_sync=not synced)
            try:
                self._gathered = self._each_once()
            finally:
                self.unsync(should_unsync=self._is_synced and not synced)
        return self._gathered

    @override
    def forward(self, *batch: Tensor | None) -> None:
        """Refuse: figures are of a whole set, never of a batch.

        Raises:
            UserError: Always.
        """
        name = type(self).__name__
        raise UserError(f"{name}: call update() for each batch and compute() at the end, not the metric itself")

    @override
    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self._optional, self._gathered = None, None

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
        kept, optional = order[~again], self._optional or {}
        groups, queries = (
            dim_zero_cat(getattr(self, name))[kept] if optional.get(name) else None for name in ("groups", "queries")
        )
        return Gathered(dim_zero_cat(self.embeddings)[kept], labels[~again], ids[~again], groups, queries)
