"""Base class of the metrics: embeddings collected batch by batch, over every process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from metric_module.config.monitor import is_error
from metric_module.distances import Distance
from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.inputs import check_items
from metric_module.evaluation.preflight import Labelled, Missing
from metric_module.evaluation.relation_retrieval import Sought
from metric_module.evaluation.retrieval import PerQuery

SAME = 0.05
"""Largest difference of two embeddings of one sample, relative to the longer one: rounding in half precision."""


class Gathered(NamedTuple):
    """Every sample once, in order of id."""

    embeddings: Tensor  # (N, D)
    labels: Tensor  # (N,) int64
    ids: Tensor  # (N,) int64
    groups: Tensor | None  # (N,) int64
    queries: Tensor | None  # (N,) bool: True for a query, False for an item of the gallery


_UNIQUE_IDS = (
    "ids must be unique over all processes: let the loader yield (inputs, labels, index), or leave "
    "use_distributed_sampler=True to the Trainer"
)


class EmbeddingMetric(Metric):
    """Figures of a whole set of embeddings, each sample once; a subclass computes them in :meth:`figures`.

    Samples are identified by their ids: duplicates from a sampler's padding are dropped, and figures do not depend on
    the order in which batches come. Call :meth:`update` for each batch and :meth:`compute` at the end. Figures that the
    samples do not allow are left out and named in :attr:`left_out`.

    Args:
        distance: The distance; None is Euclidean. It stays with its owner, outside this metric's state.

    Attributes:
        threshold: Distance up to which two samples count as one class, found on other data; None if there is none.
        pairs: Pairs of ids for verification, int64 ``(P, 2)``; None is all pairs.
        folds: Fold of each pair, int64 ``(P,)``; None is none.
        sought: The retrieval task in data of relations; None in data of classes.
        main_figure: The figure that selects the best checkpoint unless ``monitor`` names another; None, the default,
            leaves that to the user.
        per_query: Retrieval figures of each query, whose ``rows`` are rows of :meth:`gathered`, the same on every
            process; None until :meth:`compute` of a metric that has them, and again after :meth:`reset`.
        left_out: A line for each group of figures that the last :meth:`compute` left out, with the reason.
    """

    main_figure: str | None = None
    by_pairs = False  # whether the figures are of a relation, and not of classes

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embeddings: list[Tensor]
    labels: list[Tensor]
    ids: list[Tensor]
    groups: list[Tensor]
    queries: list[Tensor]

    def __init__(self, distance: Distance | None = None) -> None:
        # compute() calls gathered(), which gathers over processes once for all metrics.
        super().__init__(sync_on_compute=False)
        self._distance = (distance,)  # in a tuple, or torch would register it as a submodule
        self.threshold: float | None = None
        self.pairs: Tensor | None = None
        self.folds: Tensor | None = None
        self.sought: Sought | None = None
        self.per_query: PerQuery | None = None
        self.left_out: list[str] = []
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
        """Compute the figures by name.

        Every process calls this with the same samples, and must return the same figures.

        Args:
            samples: Every sample of all processes.
        """

    def missing(self, data: Labelled) -> list[Missing]:
        """List the figures that a set cannot have, from its labels alone; those of a subclass of one's own are unknown.

        Args:
            data: The set, before anything is embedded.
        """
        return []

    def figure_names(self, folds: int | None = None) -> list[str] | None:
        """List the figures that a validation may have; None, the default, if :meth:`figures` alone knows them.

        With the list, a misspelt ``monitor`` is found before the first step.

        Args:
            folds: Number of folds of listed pairs; None without folds.
        """
        return None

    def lower_is_better(self, figure: str) -> bool:
        """Return whether lower is better: for a loss or an error, or if :attr:`higher_is_better` is False.

        Args:
            figure: Its name, without the stage.
        """
        return not self.higher_is_better or is_error(figure)

    @override
    def update(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ids: Tensor,
        groups: Tensor | None = None,
        queries: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            embeddings: Rows ``(B, D)``.
            labels: Integers ``(B,)``.
            ids: Integers ``(B,)``: id of each sample in its data set.
            groups: Integers ``(B,)``. In every batch or in none.
            queries: Bools ``(B,)``: True for a query, False for an item of the gallery. In every batch or in none;
                without them every sample is both.

        Raises:
            UserError: If a shape, type or number is wrong, or only some batches have groups or queries.
        """
        items = check_items(embeddings, labels, ids, groups)
        given = {"groups": groups is not None, "queries": queries is not None}
        for name, now in given.items():
            if self._optional is not None and self._optional[name] != now:
                got = "given here, not before" if now else "missing here, given before"
                raise UserError(f"{name}: expected them in every batch or in none, got them {got}")
        if queries is not None and (queries.dtype != torch.bool or queries.shape != labels.shape):
            raise UserError(
                f"queries: expected a bool tensor of shape [{len(labels)}], got {tuple(queries.shape)} {queries.dtype}"
            )
        self._optional, self._gathered, self.per_query = given, None, None
        empty = torch.zeros_like(items.labels)
        self.embeddings.append(items.embeddings)
        self.labels.append(items.labels)
        self.ids.append(ids.detach().to(items.labels))
        self.groups.append(empty if items.groups is None else items.groups)
        self.queries.append((empty if queries is None else queries).to(items.labels.device).bool())

    @override
    def compute(self) -> dict[str, float]:
        """Compute the figures of all batches that the samples allow; every process must call it.

        Raises:
            UserError: If there was no batch, or one id has two labels or two embeddings.
        """
        self.check_sought()
        self.left_out.clear()
        samples = self.gathered()
        return self.if_possible(type(self).__name__, lambda: self.figures(samples))

    def if_possible(self, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Compute figures; if the samples do not allow them, return none and add a line to :attr:`left_out`.

        Args:
            name: Name of the figures, for that line.
            compute: Computes them; the same on every process.
        """
        try:
            return compute()
        except NotComputableError as reason:
            self.left_out.append(f"{name}: {reason}")
            return {}

    def check_sought(self) -> None:
        """Check that the data has what the figures are of: classes, or a relation.

        Raises:
            UserError: If the data is of the other kind.
        """
        if (self.sought is not None) != self.by_pairs:
            kinds = (
                ("relations", "classes", "retrieval") if self.by_pairs else ("classes", "relations", "pair_retrieval")
            )
            expected, got, advice = kinds
            name = type(self).__name__
            raise UserError(
                f"evaluation: {name} measures {expected}, and this data has {got}; give evaluation={advice}"
            )

    def gathered(self) -> Gathered:
        """Gather the batches of all processes: each sample once, in order of id.

        Every process must call this or :meth:`compute`; a second call returns the result of the first.

        Returns:
            Embeddings ``(N, D)``, labels, ids, groups and queries ``(N,)``.

        Raises:
            UserError: If there was no batch, or one id has two labels or two embeddings.
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
        """Reject the call: figures are of a whole set, never of a batch.

        Raises:
            UserError: Always.
        """
        name = type(self).__name__
        raise UserError(f"{name}: call update() for each batch and compute() at the end, not the metric itself")

    @override
    def reset(self) -> None:
        """Remove every batch, :attr:`per_query` and :attr:`left_out`."""
        super().reset()
        self.left_out.clear()
        self._optional, self._gathered, self.per_query = None, None, None

    def empty_copy(self, distance: Distance | None = None) -> Self:
        """Return a metric with the same settings, without batches.

        Args:
            distance: The distance in place of this metric's own; None keeps that.
        """
        shared = {id(part): part for part in (self.distance, self.sought) if part is not None}
        if distance is not None and self.distance is not None:
            shared[id(self.distance)] = distance
        copy = deepcopy(self, shared)
        copy.reset()
        return copy

    def _each_once(self) -> Gathered:
        """Sort the state by id, and keep the first of equal ids."""
        ids, order = torch.sort(dim_zero_cat(self.ids), stable=True)  # (N,), (N,)
        labels = dim_zero_cat(self.labels)[order]  # (N,)
        again = torch.zeros_like(ids, dtype=torch.bool)  # (N,)
        again[1:] = ids[1:] == ids[:-1]
        clash = (again[1:] & (labels[1:] != labels[:-1])).nonzero().flatten()
        if len(clash):
            at = int(clash[0])
            pair = f"{int(labels[at])} and {int(labels[at + 1])}"
            raise UserError(
                f"ids: expected one label for each id, got labels {pair} for id {int(ids[at])}; {_UNIQUE_IDS}"
            )
        embeddings = dim_zero_cat(self.embeddings)
        self._check_same(embeddings[order[again]], embeddings[order[again.roll(-1)]], ids[again])
        kept, optional = order[~again], self._optional or {}
        groups, queries = (
            dim_zero_cat(getattr(self, name))[kept] if optional.get(name) else None for name in ("groups", "queries")
        )
        return Gathered(embeddings[kept], labels[~again], ids[~again], groups, queries)

    @staticmethod
    def _check_same(embeddings: Tensor, before: Tensor, ids: Tensor) -> None:
        """Check that embeddings ``(n, D)`` with equal ids ``(n,)`` are of one sample.

        Samples that are numbered on each process alone have equal ids too, and must not be dropped as padding.
        """
        length = torch.maximum(*(torch.linalg.vector_norm(rows, dim=1) for rows in (embeddings, before)))  # (n,)
        other = torch.linalg.vector_norm(embeddings - before, dim=1) > SAME * length  # (n,)
        if other.any():
            raise UserError(
                f"ids: expected one sample for each id, got different embeddings for id {int(ids[other][0])}; "
                f"{_UNIQUE_IDS}"
            )
