"""Input of the criterion on several processes: this process's anchors, and the references of all processes.

There is one function each for labelled samples and for pairs.

Shapes: B = anchors or queries of this process, M = references of this process, Q and G = queries and references of all
processes, K = anchors of this process where references are anchors too, D = embedding size, W = number of processes.
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
    """Input of the criterion on this process, for one training step of all processes.

    Attributes:
        given: Anchors of this process and references of all processes.
        embeddings: The references of this step, without those of past batches, ``(G, D)``; ``(Q + G, D)`` where
            references are anchors too.
    """

    given: MiningInput
    embeddings: Tensor


def samples_among_all(
    embeddings: Tensor, labels: Tensor, ids: Tensor | None, gather: bool, memory: CrossBatchMemory | None
) -> GlobalBatch:
    """Build the input that compares this process's samples with those of all processes and of past batches.

    Every process must call it.

    Args:
        embeddings: Finite, ``(B, D)``.
        labels: Class of each, int64 ``(B,)``.
        ids: Identity of each, int64 ``(B,)``, or None.
        gather: Whether to gather the samples of all processes, with gradients.
        memory: Embeddings of past batches, or None.
    """
    gather = gather and world_size() > 1
    step = Together(embeddings, labels, ids, slice(0, len(labels)))
    if gather:
        step = gather_batch(embeddings, labels, ids)
    if memory is None:
        return GlobalBatch(rows_among_all(step) if gather else MiningInput(embeddings, labels), step.embeddings)
    fields, own = memory(step.embeddings, step.labels, step.ids), step.own
    fields["ids"] = fields["ids"][own]  # the anchors are only the samples of this process
    given = MiningInput(fields["reference"][own], labels)._replace(**fields, first=own.start if gather else None)
    return GlobalBatch(given, step.embeddings)


def rows_among_all(whole: Together) -> MiningInput:
    """Use the rows of this process as anchors, and all rows as references.

    Args:
        whole: The rows of all processes.
    """
    positions = torch.arange(len(whole.labels), device=whole.labels.device)  # (G,), as ids
    # The anchors are a view of the references, so that their positions among them need no search.
    return MiningInput(
        whole.embeddings[whole.own],
        whole.labels[whole.own],
        whole.embeddings,
        whole.labels,
        positions[whole.own],
        positions,
        first=whole.own.start,
    )


def pairs_among_all(query: Tensor, reference: Tensor, batch: PairBatch, gather: bool, both_ways: bool) -> GlobalBatch:
    """Build the input that compares this process's queries with the references of all processes.

    Every process must call it. With ``both_ways``, references are anchors too, and are compared with the queries under
    the transposed masks. The references of the input are then all queries followed by all references; a pair of two
    queries, or of two references, is neither positive nor negative. The anchors are all queries and those references
    that are a positive of some query, and each process takes an equal share of them.

    Args:
        query: Finite embeddings of the queries, ``(B, D)``.
        reference: Finite embeddings of the references, ``(M, D)``.
        batch: Its masks, ``(B, G)``.
        gather: Whether to gather the references of all processes, with gradients. Loss and census are then those of
            the global batch, and the mean gradient of the processes equals that of one process with the global batch.
        both_ways: Whether the references are anchors too.

    Raises:
        UserError: If the masks do not have one row for each query and one column for each reference.
    """
    rank, processes = shard() if gather else (0, 1)
    query_counts, reference_counts = _sizes(query, reference, batch, processes)
    gather = processes > 1
    reference = gather_rows(reference, reference_counts) if gather else reference  # (G, D)
    positives, negatives = batch.positives, batch.negatives  # (B, G), (B, G)
    if not both_ways:
        first = sum(query_counts[:rank]) if gather else None
        given = MiningInput(query, None, reference, positives=positives, negatives=negatives, first=first)
        return GlobalBatch(given, reference)
    negatives = ~positives if negatives is None else negatives
    if gather:
        query = gather_rows(query, query_counts)  # (Q, D)
        # (Q, G) each
        positives, negatives = (gather_rows(mask.byte(), query_counts).bool() for mask in (positives, negatives))
    all_anchors = torch.cat([positives.new_ones(len(positives)), positives.any(dim=0)]).nonzero()[:, 0]
    own = _shard_of(len(all_anchors), rank, processes)
    anchors = all_anchors[own]  # (K,) rows of `combined`
    combined = torch.cat([query, reference])  # (Q + G, D)
    given = MiningInput(
        combined[anchors],
        None,
        combined,
        positives=_both_ways(positives, anchors),
        negatives=_both_ways(negatives, anchors),
        first=own.start if gather else None,
    )
    return GlobalBatch(given, combined)


def _shard_of(count: int, rank: int, processes: int) -> slice:
    """Return the rows of one process when ``count`` rows are divided evenly."""
    return slice(count * rank // processes, count * (rank + 1) // processes)


def _both_ways(mask: Tensor, anchors: Tensor) -> Tensor:
    """Return the anchors' rows ``(K, Q + G)`` of the symmetric mask ``[[0, mask], [mask.T, 0]]``, mask ``(Q, G)``."""
    queries, references = anchors[anchors < len(mask)], anchors[anchors >= len(mask)] - len(mask)
    rows = mask.new_zeros(len(anchors), sum(mask.shape))
    rows[: len(queries), len(mask) :] = mask[queries]
    rows[len(queries) :, : len(mask)] = mask[:, references].T
    return rows


def _sizes(query: Tensor, reference: Tensor, batch: PairBatch, processes: int) -> tuple[list[int], list[int]]:
    """Check that the masks fit, and return the numbers of queries and references of each process.

    Every process checks the masks of all processes, so that all of them raise the same error.

    Raises:
        UserError: If the masks of a process do not have one row for each query and one column for each reference.
    """
    own = torch.tensor([[len(query), len(reference), *batch.positives.shape]], device=query.device)  # (1, 4)
    counts = gather_rows(own, [1] * processes).tolist() if processes > 1 else own.tolist()  # (W, 4)
    queries, references, *_ = (list(sizes) for sizes in zip(*counts, strict=True))
    for rank, (query_count, _, rows, columns) in enumerate(counts):
        if query_count != rows:
            raise UserError(f"positives: expected a row for each of {query_count} queries, got {rows} rows")
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
