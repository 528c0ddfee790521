"""This process's anchors among the references of all processes: labelled samples, pairs, or a whole evaluation set.

Shapes: B = anchors or queries of this process, M = its references, Q and G = queries and references of all processes,
K = anchors of this process where references are anchors too, D = embedding size, W = number of processes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.batch import PairBatch
from metric_module.criterion.inputs import MiningInput
from metric_module.distributed import Together, gather_batch, gather_rows, shard, world_size
from metric_module.errors import UserError
from metric_module.training.memory import CrossBatchMemory


class GlobalBatch(NamedTuple):
    """One step of all processes, as this process mines it.

    Attributes:
        given: Checked input of the criterion.
        embeddings: Embeddings of the step without those of past batches, ``(G, D)``.
    """

    given: MiningInput
    embeddings: Tensor


def samples_among_all(
    embeddings: Tensor, labels: Tensor, ids: Tensor | None, gather: bool, memory: CrossBatchMemory | None
) -> GlobalBatch:
    """Compare this process's samples with those of all processes and of past batches; every process must call it.

    Args:
        embeddings: Finite, ``(B, D)``.
        labels: Class of each, int64 ``(B,)``.
        ids: Identity of each, int64 ``(B,)``, or None.
        gather: Whether to gather the samples of all processes, with gradients.
        memory: Embeddings of past batches, or None.
    """
    gather = gather and world_size() > 1
    whole = Together(embeddings, labels, ids, slice(0, len(labels)))
    if gather:
        whole = gather_batch(embeddings, labels, ids)
    if memory is None:
        return GlobalBatch(rows_among_all(whole) if gather else MiningInput(embeddings, labels), whole.embeddings)
    among, own = memory(whole.embeddings, whole.labels, whole.ids), whole.own
    among["ids"] = among["ids"][own]
    given = MiningInput(among["reference"][own], labels)._replace(**among, first=own.start if gather else None)
    return GlobalBatch(given, whole.embeddings)


def rows_among_all(whole: Together) -> MiningInput:
    """Use the rows of this process as anchors, and all rows as references.

    Args:
        whole: The rows of all processes.
    """
    place = torch.arange(len(whole.labels), device=whole.labels.device)  # (G,)
    # As a view of the references, the anchors can be located among them without a search.
    return MiningInput(
        whole.embeddings[whole.own],
        whole.labels[whole.own],
        whole.embeddings,
        whole.labels,
        place[whole.own],
        place,
        first=whole.own.start,
    )


def set_among_all(embeddings: Tensor, labels: Tensor) -> MiningInput:
    """Compare this process's shard of a whole set with the set, as one batch.

    Args:
        embeddings: Finite, the same on every process, ``(G, D)``.
        labels: Class of each, int64 ``(G,)``.
    """
    if world_size() == 1:
        return MiningInput(embeddings, labels)
    return rows_among_all(Together(embeddings, labels, None, _shard_of(len(labels), *shard())))


def pairs_among_all(query: Tensor, reference: Tensor, batch: PairBatch, gather: bool, both_ways: bool) -> GlobalBatch:
    """Compare this process's queries with the references of all processes; every process must call it.

    With ``both_ways``, references are anchors too, among the queries, by the same masks: the references are then all
    queries followed by all references, and two of a kind are neither positive nor negative. The anchors are all queries
    and those references that belong to a query, and each process takes an equal shard of them.

    Args:
        query: Finite embeddings of the queries, ``(B, D)``.
        reference: Finite embeddings of the references, ``(M, D)``.
        batch: Its masks, ``(B, G)``.
        gather: Whether to gather the references of all processes, with gradients. Loss and census are then those of
            the global batch, and the gradient's mean over the processes is that of one process with all of it.
        both_ways: Whether the references are anchors too.

    Raises:
        UserError: If the masks do not have one row for each query and one column for each reference.
    """
    rank, processes = shard() if gather else (0, 1)
    queries, references = _sizes(query, reference, batch, processes)
    gather = processes > 1
    reference = gather_rows(reference, references) if gather else reference  # (G, D)
    positives, negatives = batch.positives, batch.negatives  # (B, G), (B, G)
    if not both_ways:
        first = sum(queries[:rank]) if gather else None
        given = MiningInput(query, None, reference, positives=positives, negatives=negatives, first=first)
        return GlobalBatch(given, reference)
    negatives = ~positives if negatives is None else negatives
    if gather:
        query = gather_rows(query, queries)  # (Q, D)
        positives, negatives = (gather_rows(mask.byte(), queries).bool() for mask in (positives, negatives))  # (Q, G)
    paired = torch.cat([positives.new_ones(len(positives)), positives.any(dim=0)]).nonzero()[:, 0]
    own = _shard_of(len(paired), rank, processes)
    anchors = paired[own]  # (K,)
    every = torch.cat([query, reference])  # (Q + G, D)
    given = MiningInput(
        every[anchors],
        None,
        every,
        positives=_both_ways(positives, anchors),
        negatives=_both_ways(negatives, anchors),
        first=own.start if gather else None,
    )
    return GlobalBatch(given, every)


def _shard_of(count: int, rank: int, processes: int) -> slice:
    """Rows of one process, when ``count`` rows are divided evenly."""
    return slice(count * rank // processes, count * (rank + 1) // processes)


def _both_ways(mask: Tensor, anchors: Tensor) -> Tensor:
    """Rows ``(K, Q + G)`` of the anchors in the symmetric mask that a mask ``(Q, G)`` of queries implies."""
    queries, references = anchors[anchors < len(mask)], anchors[anchors >= len(mask)] - len(mask)
    rows = mask.new_zeros(len(anchors), sum(mask.shape))
    rows[: len(queries), len(mask) :] = mask[queries]
    rows[len(queries) :, : len(mask)] = mask[:, references].T
    return rows


def _sizes(query: Tensor, reference: Tensor, batch: PairBatch, processes: int) -> tuple[list[int], list[int]]:
    """Check that the masks fit, and return the numbers of queries and references of each process.

    Every process checks the sizes of all, so that all of them stop alike.

    Raises:
        UserError: If the masks of a process do not have one row for each query and one column for each reference.
    """
    own = torch.tensor([[len(query), len(reference), *batch.positives.shape]], device=query.device)  # (1, 4)
    counts = gather_rows(own, [1] * processes).tolist() if processes > 1 else own.tolist()  # (W, 4)
    queries, references, *_ = (list(sizes) for sizes in zip(*counts, strict=True))
    for rank, (expected, _, rows, columns) in enumerate(counts):
        if expected != rows:
            raise UserError(f"positives: expected a row for each of {expected} queries, got {rows} rows")
        if columns == sum(references):
            continue
        if processes == 1:
            raise UserError(f"positives: expected a column for each of {references[0]} references, got {columns}")
        raise UserError(
            f"positives: expected a column for each of the {sum(references)} references of all processes, in order of "
            f"rank ({' + '.join(map(str, references))}), got {columns} on rank {rank}; masks of a process's own "
            "references need module.gather=false"
        )
    return queries, references
