"""Cases of ``benchmarks.mining``: workloads, their inputs, and the limits that they must meet.

Shapes: B = batch, D = embedding size, C = classes, K = samples of each class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

MARGIN = 0.2
MINED = (
    "semihard",
    "all",
    "hard",
    "batch_hard",
    "semihard_nearest",
    "easy_positive",
    "distance_weighted",
    "random",
)
"""The miners that are measured with and without the census."""
_LARGEST_CLASS = 40


@dataclass(frozen=True)
class Work:
    """Mining and loss on one batch, forward and backward.

    Attributes:
        miner: Name of a miner on the command line, such as ``"semihard"``.
        batch: Embeddings in the batch, B.
        dimension: Size of an embedding, D.
        per_class: Samples of each class, K; None draws 1 to 40 for each.
        loss: ``"hinge"`` or ``"soft"``.
        census: Whether our side counts the triplets of each category.
    """

    miner: str
    batch: int
    dimension: int = 128
    per_class: int | None = 4
    loss: str = "hinge"
    census: bool = False


@dataclass(frozen=True)
class Bars:
    """Limits on the figures of a case; None where there is no limit.

    Attributes:
        floor: Most that our time may be, in times of the floor.
        peer: Least that the time of pytorch-metric-learning must be, in times of ours.
        oml: Least that the time of open-metric-learning must be, in times of ours.
        share: Most that our extra memory may be, as a share of the peer's.
        megabytes: What our extra memory must stay below.
        even: Most that our time may be, in times of ours with K=4 on as large a batch.
        census: Most that our time with the census may be, in times of ours without. Only these two are measured then.
    """

    floor: float | None = None
    peer: float | None = None
    oml: float | None = None
    share: float | None = None
    megabytes: float | None = None
    even: float | None = None
    census: float | None = None


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    title: str
    work: Work
    bars: Bars


_SMALL = Bars(peer=1.5)
CASES = {
    "semihard": Case("Semihard, B=1024", Work("semihard", 1024), Bars(floor=1.8, peer=30, share=0.1)),
    "all": Case("All, B=1024", Work("all", 1024), Bars(floor=3.5, peer=25)),
    "batch_hard": Case("BatchHard, B=1024", Work("batch_hard", 1024), Bars(floor=2.5, peer=1.5, oml=1)),
    "distance_weighted": Case("DistanceWeighted, B=1024", Work("distance_weighted", 1024), Bars(peer=20)),
    "soft": Case("All with the soft loss, B=1024", Work("all", 1024, loss="soft"), Bars(floor=4.5)),
    "k32": Case("Semihard, K=32, B=1024", Work("semihard", 1024, per_class=32), Bars(peer=40)),
    "uneven": Case("Semihard, uneven classes, B=1024", Work("semihard", 1024, per_class=None), Bars(even=3)),
    "b4096": Case("Semihard, B=4096, D=512", Work("semihard", 4096, 512), Bars(floor=1)),
    "b32768": Case("Semihard, B=32768", Work("semihard", 32768), Bars(floor=1.6, megabytes=700)),
    "small_semihard": Case("Semihard, B=128", Work("semihard", 128), _SMALL),
    "small_all": Case("All, B=128", Work("all", 128), _SMALL),
    "small_hard": Case("Hard, B=128", Work("hard", 128), _SMALL),
    "small_batch_hard": Case("BatchHard, B=128", Work("batch_hard", 128), replace(_SMALL, oml=1)),
    "small_easy_positive": Case("EasyPositive, B=128", Work("easy_positive", 128), _SMALL),
    "small_distance_weighted": Case("DistanceWeighted, B=128", Work("distance_weighted", 128), _SMALL),
    "small_soft": Case("All with the soft loss, B=128", Work("all", 128, loss="soft"), _SMALL),
    **{
        f"census_{name}": Case(f"{name.title().replace('_', '')}, B=1024", Work(name, 1024), Bars(census=1.3))
        for name in MINED
    },
}
"""The bars, row by row; D=128 and K=4 unless the title says otherwise."""


class Inputs(NamedTuple):
    """Unit embeddings ``(B, D)`` and the class of each, shuffled, ``(B,)``."""

    embeddings: Tensor
    labels: Tensor


def inputs(work: Work, seed: int = 0) -> Inputs:
    """Embeddings as in the midst of training: every class around its centre, some samples far from it.

    Eight classes share a coarser centre, so that there are easy, semi-hard and hard triplets in any dimension.
    """
    random = torch.Generator().manual_seed(seed)

    def directions(count: int) -> Tensor:
        """Random unit vectors ``(count, D)``."""
        return normalize(torch.randn(count, work.dimension, generator=random))

    labels = _labels(work, random)  # (B,)
    classes = int(labels.max()) + 1
    coarse = directions(classes // 8 + 1).repeat_interleave(8, dim=0)[:classes]  # (C, D)
    centres = coarse + directions(classes)  # (C, D)
    spread = torch.empty(work.batch, 1).uniform_(0.5, 3.5, generator=random)  # (B, 1)
    embeddings = normalize(centres.index_select(0, labels) + spread * directions(work.batch))  # (B, D)
    return Inputs(embeddings, labels)


def _labels(work: Work, random: torch.Generator) -> Tensor:
    """Class of each sample, in random order, ``(B,)``."""
    if work.per_class is None:
        sizes = torch.randint(1, _LARGEST_CLASS + 1, (work.batch,), generator=random)  # (B,), more classes than needed
        labels = torch.arange(work.batch).repeat_interleave(sizes)[: work.batch]  # (B,)
    else:
        labels = torch.arange(work.batch) // work.per_class  # (B,)
    return labels[torch.randperm(work.batch, generator=random)]
