"""Queries and references in integer arrays, and their view as batches.

Legend: Q queries and M references of the data set, B queries of a batch, G its references over all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from datamodules.sampling.dataset import BadSampleError, Samples, Source
from datamodules.sampling.relation_sampler import PairSampler
from metric_module.batch import PairBatch
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.relations import Relation


class Side(NamedTuple):
    """One kind of samples.

    Attributes:
        fetch: Maps rows, int64 ``(B,)``, to inputs, first dimension ``B``; a :class:`datamodules.Source` can say more.
        size: How many samples there are.
        tower: Which encoder of a :class:`metric_module.encoders.MultiEncoder` takes them: inputs are then
            ``{tower: inputs}``. None: inputs as they are.
        names: What each is called; None: by its row.
    """

    fetch: Callable[[Tensor], Any]
    size: int
    tower: str | None = None
    names: Sequence[str] | None = None

    def inputs(self, rows: Tensor) -> Any:
        """What the encoder takes for some rows, int64 ``(B,)``.

        Raises:
            UserError: If one cannot be read.
        """
        try:
            found = self.fetch(rows)
        except BadSampleError as error:
            raise UserError(f"data: cannot read {error.reason}") from error
        return found if self.tower is None else {self.tower: found}


class PairData(NamedTuple):
    """A data set of pairs. Samples are numbered through: queries by row, then references, see :meth:`reference_ids`.

    Attributes:
        query: The queries.
        reference: The references; None: the queries are their own, and a sample is never its own positive or negative.
        positives: Which references belong to which query in training, by row.
        anchors: Rows of the queries that are trained on, int64.
        candidates: Rows of the references that may be drawn at random in training, int64.
        sought: What evaluation looks for, by ids: ``val`` and ``test``.
        neither: Pairs that are no negatives in training either; None: none.
    """

    query: Side
    reference: Side | None
    positives: Relation
    anchors: Tensor
    candidates: Tensor
    sought: Mapping[str, Sought]
    neither: Relation | None = None

    def reference_ids(self, rows: Tensor) -> Tensor:
        """Ids of references by their rows."""
        return rows if self.reference is None else rows + self.query.size

    def name_of(self, id: int) -> str:
        """What a sample is called, after its kind: ``user 42``."""
        second = self.reference is not None and id >= self.query.size
        side, row = (self.reference, id - self.query.size) if second else (self.query, id)
        assert side is not None
        name = str(row) if side.names is None else side.names[row]
        return f"{side.tower or 'sample'} {name}"

    def samples(self) -> Samples:
        """Every query and reference by id, each of a class of its own; a batch must be of one kind."""
        count = self.query.size + (0 if self.reference is None else self.reference.size)
        ids = torch.arange(count)
        return Samples(fetch=_BothSides(self), labels=ids, splits={"all": ids})

    def check(self) -> None:
        """Find what would otherwise go wrong while training.

        Raises:
            UserError: If there is nothing to train on or to look for, or an anchor has no positive.
        """
        missing = [name for name in ("val", "test") if name not in self.sought or not len(self.sought[name].queries)]
        missing += [] if len(self.anchors) else ["train"]
        if missing:
            raise UserError(f"data: expected queries in train, val and test, got none in {', '.join(missing)}")
        lone = self.anchors[self.positives.lists(self.anchors).sizes == 0]
        if len(lone):
            shown = ", ".join(map(str, lone[:5].tolist()))
            raise UserError(f"data: expected a positive for every query of train, got none for {len(lone)}: {shown}")


class _BothSides(Source):
    """Inputs of queries or of references, by id."""

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
        """Their numbers."""
        return [f"sample {id}" for id in ids]


class PairDataset(Dataset[PairBatch]):
    """Training batches by their number since the start of training.

    Args:
        data: The data set.
        sampler: Says who is in which batch.
    """

    def __init__(self, data: PairData, sampler: PairSampler) -> None:
        self.data = data
        self.sampler = sampler

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.sampler.batches_per_epoch

    @override
    def __getitem__(self, number: int) -> PairBatch:
        """One batch of this process."""
        data, drawn = self.data, self.sampler.draw(number)
        positives = data.positives.mask(drawn.queries, drawn.together)  # (B, G)
        neither = None if data.neither is None else data.neither.mask(drawn.queries, drawn.together)
        if data.reference is None:
            itself = drawn.queries[:, None] == drawn.together
            neither = itself if neither is None else neither | itself
        return PairBatch(
            query=data.query.inputs(drawn.queries),
            reference=(data.query if data.reference is None else data.reference).inputs(drawn.references),
            positives=positives,
            index=drawn.queries,
            negatives=None if neither is None else ~(positives | neither),
        )

    def __getitems__(self, numbers: Sequence[int]) -> PairBatch:
        """The one batch that was asked for; torch's loader calls it when it is there."""
        (number,) = numbers
        return self[number]
