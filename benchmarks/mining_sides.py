"""The sides that ``benchmarks.mining`` compares: ours, two peers, a naive loop, and the floor.

All sides give the mean over the triplets with a loss above 0, with the same margin and Euclidean distance. The peers
are not asked to normalise the embeddings again, nor to collect statistics.

Shapes: B = batch, D = embedding size, A = rows at once, P = positives of an anchor, N = its negatives, T = triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.gpu_cases import MINERS
from benchmarks.mining_cases import MARGIN, Work
from metric_module import TripletCriterion
from metric_module.distances import Euclidean

Run = Callable[[Tensor, Tensor], Tensor]
"""``run(embeddings (B, D), labels (B,))`` gives the loss ``()``."""

NAIVE = ("semihard", "all", "hard", "batch_hard", "easy_positive")
"""Miners of the naive loop."""

_NAIVE_LIMIT, _OML_LIMIT = 128, 256
_FLOOR_CELLS = 1 << 26  # of B x B: beyond it the floor too goes block by block


class UnavailableError(Exception):
    """Says why a side cannot do some work."""


def build(side: str, work: Work) -> Run:
    """A side, ready to do some work.

    Args:
        side: One of :data:`SIDES`.
        work: What it is to do.

    Raises:
        UnavailableError: If it cannot.
    """
    return SIDES[side](work)


def _ours(work: Work) -> Run:
    criterion = TripletCriterion(Euclidean(), MINERS[work.miner](), MARGIN, work.loss, census=work.census)
    return lambda embeddings, labels: criterion(embeddings, labels).loss


def _pml(work: Work) -> Run:
    """Its miners name triplets that violate the margin; the soft loss, which wants all, goes without a miner."""
    plain = pml_distances.LpDistance(normalize_embeddings=False)
    criterion = pml_losses.TripletMarginLoss(margin=MARGIN, smooth_loss=work.loss == "soft", distance=plain)
    miners: dict[str, Callable[[], Any]] = {
        **{
            kind: partial(pml_miners.TripletMarginMiner, MARGIN, type_of_triplets=kind, distance=plain)
            for kind in ("semihard", "all", "hard")
        },
        "batch_hard": lambda: pml_miners.BatchHardMiner(distance=plain),
        "easy_positive": lambda: pml_miners.BatchEasyHardMiner("easy", "semihard", distance=plain),
        "distance_weighted": lambda: pml_miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4),
    }
    if work.loss == "soft" and work.miner == "all":
        return lambda embeddings, labels: criterion(embeddings, labels)
    if work.loss == "soft" or work.miner not in miners:
        raise UnavailableError("-")
    miner = miners[work.miner]()
    return lambda embeddings, labels: criterion(embeddings, labels, miner(embeddings, labels))


def _oml(work: Work) -> Run:
    names = {"all": "AllTripletsMiner", "batch_hard": "HardTripletsMiner"}
    if work.miner not in names or work.loss != "hinge" or work.per_class is None:
        raise UnavailableError("-")
    if work.miner == "all" and work.batch > _OML_LIMIT:
        raise UnavailableError(f"B > {_OML_LIMIT}: too slow")
    try:
        miners, losses = import_module("oml.miners"), import_module("oml.losses")
    except ImportError as error:
        raise UnavailableError("not installed") from error
    criterion = losses.TripletLossWithMiner(MARGIN, getattr(miners, names[work.miner])(), reduction="none")

    def run(embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of one batch."""
        values: Tensor = criterion(embeddings, labels)  # (T,)
        return values.sum() / (values > 0).sum()

    return run


def _naive(work: Work) -> Run:
    """Anchor by anchor and positive by positive, as one writes it first."""
    if work.miner not in NAIVE:
        raise UnavailableError("-")
    if work.batch > _NAIVE_LIMIT:
        raise UnavailableError(f"B > {_NAIVE_LIMIT}")

    def run(embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of one batch."""
        values = []
        for anchor in range(len(embeddings)):
            distance = (embeddings[anchor] - embeddings).norm(dim=1)  # (B,)
            same = labels == labels[anchor]  # (B,)
            negatives = distance[~same]  # (N,)
            same[anchor] = False
            positives = distance[same]  # (P,)
            if len(positives) and len(negatives):
                values += _naive_anchor(positives, negatives, work)
        value = torch.cat(values)  # (T,)
        return value.sum() / (value > 0).sum()

    return run


def _naive_anchor(positives: Tensor, negatives: Tensor, work: Work) -> list[Tensor]:
    """Losses of one anchor's triplets, from its distances ``(P,)`` and ``(N,)``."""
    if work.miner == "batch_hard":
        positives, negatives = positives.max()[None], negatives.min()[None]
    if work.miner == "easy_positive":
        positives = positives.min()[None]
    values = []
    for positive in positives:
        chosen = negatives
        if work.miner == "semihard":
            chosen = negatives[(negatives > positive) & (negatives <= positive + MARGIN)]
        elif work.miner == "hard":
            chosen = negatives[negatives <= positive]
        elif work.miner == "easy_positive":
            chosen = negatives[negatives > positive].sort().values[:1]
        excess = positive + MARGIN - chosen
        values.append(softplus(excess) if work.loss == "soft" else excess.relu())
    return values


def _floor(work: Work) -> Run:
    """The three products that no exact mining can do without: the distances, and their gradient by either side."""
    rows = max(1, min(work.batch, _FLOOR_CELLS // work.batch))
    weight = torch.randn(rows, work.batch, generator=torch.Generator().manual_seed(0))  # (A, B)

    def run(embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of one batch."""
        plain = embeddings.detach()  # (B, D)
        for start in range(0, len(plain), rows):
            part = plain[start : start + rows]  # (A, D)
            _ = part @ plain.T  # (A, B)
            _ = weight[: len(part)] @ plain  # (A, D)
            _ = weight[: len(part)].T @ part  # (B, D)
        return plain.new_full((), float("nan"))

    return run


SIDES: dict[str, Callable[[Work], Run]] = {"ours": _ours, "pml": _pml, "oml": _oml, "naive": _naive, "floor": _floor}
