"""Batches of the shape of training, drawn from a whole set for its loss.

Legend: N = samples, C = classes, P = classes per batch, K = samples per class, T = batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.keyed_random import combine

CLASSES, SAMPLES = 1, 2


def validation_batches(labels: Tensor, ids: Tensor, classes_per_batch: int, samples_per_class: int) -> list[Tensor]:
    r"""Draw :math:`\lceil C / P \rceil` batches of P classes x K samples, with every class in at least one.

    A class of fewer than K samples gives all it has. Classes of one sample are left out, unless fewer than two others
    remain. If P does not divide C, the last batch is filled with classes of the first one, as in training. The draw
    depends on labels and ids alone, and not on the order of rows.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        ids: Id of each sample, each once, int64 ``(N,)``.
        classes_per_batch: P.
        samples_per_class: K.

    Returns:
        Rows of each batch, int64, at most ``P * K`` of them.

    Example:
        >>> ids = torch.arange(8)
        >>> batches = validation_batches(ids // 2, ids, classes_per_batch=2, samples_per_class=2)
        >>> torch.cat(batches).sort().values.tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    order = combine(SAMPLES, labels, ids).argsort()  # (N,) in keyed order
    order = order[labels[order].argsort(stable=True)]  # (N,) by class
    classes, place, sizes = torch.unique_consecutive(labels[order], return_inverse=True, return_counts=True)
    number = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[place]  # (N,) within the class
    drawn = number < samples_per_class  # (N,)
    table = order.new_full((len(classes), samples_per_class), -1)  # (C, K)
    table[place[drawn], number[drawn]] = order[drawn]
    several = sizes > 1  # (C,)
    if int(several.sum()) >= 2:
        classes, table = classes[several], table[several]
    table = table[combine(CLASSES, classes).argsort()]  # (C, K)
    count = -(-len(table) // classes_per_batch) * classes_per_batch if len(table) > classes_per_batch else len(table)
    table = table[torch.arange(count, device=table.device) % len(table)]  # (T * P, K)
    return [rows[rows >= 0] for rows in torch.split(table, classes_per_batch)]
