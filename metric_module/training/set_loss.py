"""The criterion's loss over a whole set.

Shapes: N = samples of the set, D = embedding size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from metric_module.criterion import CriterionOutput, TripletCriterion
from metric_module.distributed import share
from metric_module.evaluation import Gathered


def loss_of_set(criterion: TripletCriterion, samples: Gathered) -> Tensor:
    """The loss of a whole set as one batch, of which each process takes its share of the anchors.

    Args:
        criterion: Mines among all samples.
        samples: Embeddings ``(N, D)``, labels and ids of the set, the same on every process.

    Returns:
        The loss ``()``, the same on every process.
    """
    embeddings, labels, ids, *_ = samples
    among: dict[str, Any] = {}
    rank, ranks = share()
    if ranks > 1:
        first, last = len(labels) * rank // ranks, len(labels) * (rank + 1) // ranks
        among = {"reference": embeddings, "reference_labels": labels, "reference_ids": ids, "first": first}
        embeddings, labels, among["ids"] = embeddings[first:last], labels[first:last], ids[first:last]
    output: CriterionOutput = criterion(embeddings, labels, **among, census=False)
    return output.loss
