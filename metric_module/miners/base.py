"""The two kinds of miner, and what they work with.

Shapes: A = anchors in the block, M = references, K = most positives of any of these anchors, T = triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from metric_module.distances import Distance

Uniform = Callable[[int], Tensor]
"""``uniform(n)`` gives ``(A, n)`` numbers in [0, 1) that depend on the seed, the step and the anchor alone."""


class Triplets(NamedTuple):
    """Triplets of one block, as local indices, each int64 ``(T,)``.

    Attributes:
        anchor: Row of the distances, in ``[0, A)``.
        positive: Column of the positive, in ``[0, M)``.
        negative: Column of the negative, in ``[0, M)``.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor


class WindowMiner(nn.Module):
    """Selects, for each positive pair, every negative whose distance lies in a window.

    A custom one defines :meth:`window`. The loss then runs over all triplets in the window, exactly.

    Example:
        >>> class Narrow(WindowMiner):
        ...     def window(self, d_ap, margin):
        ...         return d_ap, d_ap + margin / 2
    """

    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor | float, Tensor | float]:
        """The span of negative distances to use, half open: ``low < d_an <= high``.

        Args:
            d_ap: Distances of positive pairs, ``(A, K)``; ``-inf`` where an anchor has fewer than K positives.
            margin: The criterion's margin, in units of the distance.

        Returns:
            ``(low, high)``, each a number or a tensor that broadcasts to ``(A, K)``; ``-inf`` and ``inf`` for no edge.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define window(d_ap, margin) -> (low, high)")


class SelectingMiner(nn.Module):
    """Names triplets of a block, at most a few per positive pair. A custom one defines :meth:`select`."""

    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Choose triplets for a block of anchors.

        Args:
            distances: ``(A, M)``, without gradient.
            positive: Bool mask ``(A, M)``: which references are positives of each anchor.
            negative: Bool mask ``(A, M)``: which are negatives. The anchor itself is neither.
            margin: The criterion's margin, in units of the distance.
            uniform: ``uniform(n)`` gives ``(A, n)`` random numbers in [0, 1), the same for an anchor whatever the
                block size or the number of processes.

        Returns:
            The chosen triplets.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select(distances, positive, ...) -> Triplets")

    def check(self, distance: Distance, embeddings: Tensor) -> None:
        """Refuse what the miner cannot work with; called before each selection. Accepts everything by default.

        Args:
            distance: The criterion's distance.
            embeddings: The references, ``(M, D)``, float32 or float64.
        """
