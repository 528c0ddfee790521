"""Miners that select every triplet of a category: easy, semi-hard, hard or all."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from metric_module.miners.base import WindowMiner


class All(WindowMiner):
    """Every valid triplet."""

    categories = frozenset({"easy", "semihard", "hard"})

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[float, float]:
        """``-inf < d_an <= inf``."""
        return -math.inf, math.inf


class Easy(WindowMiner):
    """Every triplet with ``d_an > d_ap + margin``; its hinge loss is zero, so only a soft loss learns from it."""

    categories = frozenset({"easy"})

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, float]:
        """``d_an > d_ap + margin``."""
        return d_ap + margin, math.inf


class Semihard(WindowMiner):
    """Every triplet whose negative is farther than the positive, but by no more than the margin.

    For each positive pair these are all semi-hard negatives; FaceNet (Schroff et al. 2015, section 3.2) uses one of
    them (:class:`SemihardNearest`).
    """

    categories = frozenset({"semihard"})

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """``d_ap < d_an <= d_ap + margin``."""
        return d_ap, d_ap + margin


class Hard(WindowMiner):
    """Every triplet whose negative is no farther than the positive."""

    categories = frozenset({"hard"})

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[float, Tensor]:
        """``d_an <= d_ap``."""
        return -math.inf, d_ap
