"""One step of pair supervision: queries among references, or each among the other.

Shapes: B = queries of this process, M = its references, Q and G = those of all processes, K = anchors of this process,
D = embedding size, W = number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.batch import PairBatch
from metric_module.criterion import CriterionOutput, TripletCriterion
from metric_module.distributed import gather_rows, share
from metric_module.errors import UserError


def mine_pairs(
    criterion: TripletCriterion, query: Tensor, reference: Tensor, batch: PairBatch, gather: bool, census: bool
) -> tuple[CriterionOutput, Tensor]:
    """Loss of this process's queries among references; every process must call it.

    Args:
        criterion: Mines and measures.
        query: Embeddings of the queries ``(B, D)``.
        reference: Embeddings of the references ``(M, D)``.
        batch: Whose masks say what belongs together.
        gather: Whether to bring the references of all processes together, with gradients. Loss and census are then
            those of the global batch, and the gradient's mean over the processes is that of one process with all of it.
        census: Whether to count easy, semi-hard and hard triplets.

    Returns:
        What the criterion gives, and the references that were looked at ``(G, D)``.

    Raises:
        UserError: If there is not one query for each row of the masks, or one reference for each column.
    """
    rank, ranks = share() if gather else (0, 1)
    queries, references = _sizes(query, reference, batch, ranks)
    first = None
    if ranks > 1:
        reference, first = gather_rows(reference, references), sum(queries[:rank])  # (G, D)
    masks = {"positives": batch.positives, "negatives": batch.negatives}
    output: CriterionOutput = criterion(query, None, reference, **masks, census=census, first=first)
    return output, reference


def mine_both_ways(
    criterion: TripletCriterion, query: Tensor, reference: Tensor, batch: PairBatch, gather: bool, census: bool
) -> tuple[CriterionOutput, Tensor]:
    """:func:`mine_pairs` with the references as anchors too, which look for the queries by the same masks.

    One call of the criterion does both. Its references are all queries and then all references, of all processes; so
    are its anchors, but for references that no query calls its own, and each process takes an equal share of them. Two
    of a kind are neither positive nor negative.

    Args:
        criterion: As there, and so are the others.
        query: As there.
        reference: As there.
        batch: As there.
        gather: As there.
        census: As there, of the triplets of both ways.

    Returns:
        What the criterion gives, and all that was looked at ``(Q + G, D)``.

    Raises:
        UserError: As there.
    """
    rank, ranks = share() if gather else (0, 1)
    queries, references = _sizes(query, reference, batch, ranks)
    positives = batch.positives  # (B, G)
    negatives = ~positives if batch.negatives is None else batch.negatives  # (B, G)
    if ranks > 1:
        query, reference = gather_rows(query, queries), gather_rows(reference, references)  # (Q, D), (G, D)
        positives, negatives = (gather_rows(mask.byte(), queries).bool() for mask in (positives, negatives))  # (Q, G)
    asked = torch.cat([positives.new_ones(len(positives)), positives.any(dim=0)]).nonzero()[:, 0]
    first, last = (len(asked) * place // ranks for place in (rank, rank + 1))
    anchors = asked[first:last]  # (K,)
    among = torch.cat([query, reference])  # (Q + G, D)
    masks = {"positives": _both(positives, anchors), "negatives": _both(negatives, anchors)}
    output: CriterionOutput = criterion(
        among[anchors], None, among, **masks, census=census, first=first if ranks > 1 else None
    )
    return output, among


def _both(mask: Tensor, anchors: Tensor) -> Tensor:
    """The rows of some anchors ``(K, Q + G)``, where queries see references by a mask ``(Q, G)``, and these them."""
    queries, references = anchors[anchors < len(mask)], anchors[anchors >= len(mask)] - len(mask)
    rows = mask.new_zeros(len(anchors), sum(mask.shape))
    rows[: len(queries), len(mask) :] = mask[queries]
    rows[len(queries) :, : len(mask)] = mask[:, references].T
    return rows


def _sizes(query: Tensor, reference: Tensor, batch: PairBatch, ranks: int) -> tuple[list[int], list[int]]:
    """How many queries and references each process has, once their masks were found to fit."""
    told = torch.tensor([[len(query), len(reference), *batch.positives.shape]], device=query.device)  # (1, 4)
    counts = gather_rows(told, [1] * ranks).tolist() if ranks > 1 else told.tolist()  # (W, 4)
    queries, references = ([count[kind] for count in counts] for kind in (0, 1))
    _check(counts, references)
    return queries, references


def _check(counts: list[list[int]], sizes: list[int]) -> None:
    """Stop all processes alike: each knows the counts of every other."""
    for rank, (queries, _, rows, columns) in enumerate(counts):
        if queries != rows:
            raise UserError(f"positives: expected a row for each of {queries} queries, got {rows} rows")
        if columns == sum(sizes):
            continue
        if len(sizes) == 1:
            raise UserError(f"positives: expected a column for each of {sizes[0]} references, got {columns}")
        raise UserError(
            f"positives: expected a column for each of the {sum(sizes)} references of all processes, in order of rank "
            f"({' + '.join(map(str, sizes))}), got {columns} on rank {rank}; masks of a process's own references need "
            "module.gather=false"
        )
