"""Queries of this process among the references of all: one step of pair supervision.

Shapes: B = queries of this process, M = its references, G = references of all processes, D = embedding size, W = number
of processes.
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
    rows, columns = batch.positives.shape
    told = torch.tensor([[len(query), len(reference), rows, columns]], device=query.device)  # (1, 4)
    counts = gather_rows(told, [1] * ranks).tolist() if ranks > 1 else told.tolist()  # (W, 4)
    sizes = [count[1] for count in counts]
    _check(counts, sizes)
    first = None
    if ranks > 1:
        reference, first = gather_rows(reference, sizes), sum(count[0] for count in counts[:rank])  # (G, D)
    masks = {"positives": batch.positives, "negatives": batch.negatives}
    output: CriterionOutput = criterion(query, None, reference, **masks, census=census, first=first)
    return output, reference


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
