"""A data set of relations in integer arrays, and its view as batches.

Legend: B = queries in a batch, G = references in a batch over all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from datamodules.messages import shortened
from datamodules.relations.history import History
from datamodules.sampling.dataset import BadSampleError, Samples, Source
from datamodules.sampling.relation_sampler import PairSampler
from datamodules.sampling.splits import SPLITS
from metric_module.batch import PairBatch
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.relations import Relation


class Side(NamedTuple):
    """One side of a relation: queries or references.

    Attributes:
        fetch: Maps rows, int64 ``(B,)``, to inputs, first dimension ``B``; a :class:`datamodules.Source` can also check
            and show samples.
        size: Number of samples.
        tower: Encoder of a :class:`metric_module.encoders.MultiEncoder` for this side: inputs are ``{tower: inputs}``.
            None: inputs as fetched.
        names: Name of each sample; None: its row.
    """

    fetch: Callable[[Tensor], Any]
    size: int
    tower: str | None = None
    names: Sequence[str] | None = None

    def inputs(self, rows: Tensor) -> Any:
        """Read the encoder inputs of some rows.

        Args:
            rows: Rows of this side, int64 ``(B,)``.

        Raises:
            UserError: A sample cannot be read.
        """
        try:
            inputs = self.fetch(rows)
        except BadSampleError as error:
            raise UserError(f"data: cannot read {error.reason}") from error
        return inputs if self.tower is None else {self.tower: inputs}


class PairData(NamedTuple):
    """A data set of relations. Ids number the queries by row, then the references, see :meth:`reference_ids`.

    Attributes:
        query: The queries.
        reference: The references; None: they are the queries, and a sample is never its own positive or negative.
        positives: References linked to each query in training, by row; in order of time, if a query is its
            :class:`History`.
        anchors: Rows of the training queries, int64.
        candidates: Rows of the references that may be drawn at random in training, int64.
        sought: Queries, references and their links in evaluation, by id, for ``val`` and ``test``.
        neither: Links that are neither positive nor negative in training; None: no such links.
    """

    query: Side
    reference: Side | None
    positives: Relation
    anchors: Tensor
    candidates: Tensor
    sought: Mapping[str, Sought]
    neither: Relation | None = None

    def reference_ids(self, rows: Tensor) -> Tensor:
        """Convert rows of references to ids."""
        return rows if self.reference is None else rows + self.query.size

    def name_of(self, id: int) -> str:
        """Name a sample by its kind and name: ``user 42``."""
        second = self.reference is not None and id >= self.query.size
        side, row = (self.reference, id - self.query.size) if second else (self.query, id)
        assert side is not None
        name = str(row) if side.names is None else side.names[row]
        kind = "sample" if self.reference is None else "reference" if second else "query"
        return f"{side.tower or kind} {name}"

    def samples(self) -> Samples:
        """View all queries and references as samples by id, each its own class; a batch must be of one side."""
        count = self.query.size + (0 if self.reference is None else self.reference.size)
        ids = torch.arange(count)
        return Samples(fetch=_BothSides(self), labels=ids, splits={"all": ids})

    def check(self) -> None:
        """Check the data set, so that mistakes are found before training.

        Raises:
            UserError: Train, val or test has no queries, or a training query has no positive.
        """
        counts = {"train": len(self.anchors), **{name: len(part.queries) for name, part in self.sought.items()}}
        missing = [name for name in SPLITS if not counts.get(name)]
        if missing:
            raise UserError(f"data: expected queries in train, val and test, got none in {', '.join(missing)}")
        lone = self.anchors[self.positives.lists(self.anchors).sizes == 0]
        if len(lone):
            raise UserError(
                f"data: expected a positive for every training query, got none for {len(lone)}: "
                f"{shortened(lone.tolist(), 5)}"
            )


class _BothSides(Source):
    """Source of queries or references, by id."""

    def __init__(self, data: PairData) -> None:
        self.data = data

    @override
    def __call__(self, ids: Tensor) -> Any:
        data = self.data
        if data.reference is None or not len(ids) or int(ids[0]) < data.query.size:
            return data.query.inputs(ids)
        return data.reference.inputs(ids - data.query.size)

    @override
    def show(self, ids: Sequence[int]) -> list[Any]:
        """Return the numbers of the samples."""
        return [f"sample {id}" for id in ids]


class PairDataset(Dataset[PairBatch]):
    """Training batches by their number since the start of training.

    Args:
        data: The data set.
        sampler: Draws the contents of each batch.
    """

    def __init__(self, data: PairData, sampler: PairSampler) -> None:
        self.data = data
        self.sampler = sampler

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.sampler.batches_per_epoch

    @override
    def __getitem__(self, number: int) -> PairBatch:
        """Read this process's shard of a batch."""
        data, drawn = self.data, self.sampler.draw(number)
        query = data.query
        positives = data.positives.mask(drawn.queries, drawn.together)  # (B, G)
        neither = None if data.neither is None else data.neither.mask(drawn.queries, drawn.together)
        if drawn.past is not None and isinstance(query.fetch, History):
            query = query._replace(fetch=partial(query.fetch.before, ends=drawn.past))
            other = positives
            positives = drawn.positives.mask(torch.arange(len(other)), drawn.together)  # (B, G)
            other &= ~positives
            neither = other if neither is None else neither | other
        if data.reference is None:
            itself = drawn.queries[:, None] == drawn.together
            neither = itself if neither is None else neither | itself
        return PairBatch(
            query=query.inputs(drawn.queries),
            reference=(data.query if data.reference is None else data.reference).inputs(drawn.references),
            positives=positives,
            index=drawn.queries,
            negatives=None if neither is None else ~(positives | neither),
        )

    def __getitems__(self, numbers: Sequence[int]) -> PairBatch:
        """Read the single requested batch; torch's loader prefers this method."""
        (number,) = numbers
        return self[number]
