"""Miners that take every triplet of a kind (see the table of categories in the documentation)."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from metric_module.miners.base import WindowMiner


class All(WindowMiner):
    """Every valid triplet."""

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[float, float]:
        """``-inf < d_an <= inf``."""
        return -math.inf, math.inf


class Easy(WindowMiner):
    """Triplets already apart by more than the margin: their hinge loss is zero, so they teach only a soft loss."""

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, float]:
        """``d_an > d_ap + margin``."""
        return d_ap + margin, math.inf


class Semihard(WindowMiner):
    """Every triplet whose negative is farther than the positive, but by no more than the margin.

    This is the definition by triplet: all of them, for each positive pair. FaceNet (Schroff et al. 2015, section 3.2)
    takes one such negative per pair.
    """

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """``d_ap < d_an <= d_ap + margin``."""
        return d_ap, d_ap + margin


class Hard(WindowMiner):
    """Every triplet whose negative is at most as far as the positive."""

    @override
    def window(self, d_ap: Tensor, margin: float) -> tuple[float, Tensor]:
        """``d_an <= d_ap``."""
        return -math.inf, d_ap
