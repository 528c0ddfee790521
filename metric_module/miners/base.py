"""The two kinds of miner, their arguments and results.

Shapes: A = anchors in the block, M = references, K = most positives of any of these anchors, T = triplets, S = most
triplets of any of these anchors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor, nn
from typing_extensions import override

from metric_module.distances import Distance
from metric_module.miners.positives import Candidates, candidates, positive_slots

Result = TypeVar("Result", covariant=True)

Uniform = Callable[[int], Tensor]
"""``uniform(n)`` returns ``(A, n)`` numbers in [0, 1) that depend only on the seed, the step and the anchor."""


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


class PaddedTriplets(NamedTuple):
    """Triplets of one block, up to S for each anchor, as columns ``(A, S)``.

    With padding no size depends on a value, so that the host need not wait for a device.

    Attributes:
        positive: Column of the positive, int64 ``(A, S)``; any column where there is no triplet.
        negative: Column of the negative, int64 ``(A, S)``; likewise.
        valid: Whether there is a triplet, bool ``(A, S)``.
    """

    positive: Tensor
    negative: Tensor
    valid: Tensor


class Block(Protocol[Result]):
    """One block of anchors, with one method for each kind of miner: the criterion sums, a report shows examples."""

    def mine_window(self, miner: WindowMiner) -> Result:
        """Result for all triplets in the miner's window."""

    def mine_selection(self, miner: SelectingMiner) -> Result:
        """Result for the triplets that the miner selects."""


class WindowMiner(nn.Module):
    """A miner that selects, for each positive pair, every negative whose distance lies in a window.

    A custom one defines :meth:`window`. The loss then runs over all triplets in the window, exactly.

    Attributes:
        any_order: True: the triplets do not depend on the order of the anchors, so that they may be sorted.
        categories: Names of the categories of triplets that make up the window, of ``easy``, ``semihard`` and ``hard``;
            None if it is not made up of whole categories. The selected triplets then need no count of their own beside
            the census. A subclass that overrides :meth:`window` alone does not inherit it.

    Example:
        >>> class Narrow(WindowMiner):
        ...     def window(self, d_ap, margin):
        ...         return d_ap, d_ap + margin / 2
    """

    any_order = True
    categories: frozenset[str] | None = None

    def __init_subclass__(cls) -> None:
        """Drop the categories of a window that is overridden below them."""
        super().__init_subclass__()
        nearest = next(base for base in cls.__mro__ if {"window", "categories"} & vars(base).keys())
        if "categories" not in vars(nearest):
            cls.categories = None

    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor | float, Tensor | float]:
        """Define the span of negative distances to use, half open: ``low < d_an <= high``.

        Args:
            d_ap: Distances of positive pairs, ``(A, K)``; ``-inf`` where an anchor has fewer than K positives.
            margin: The criterion's margin, in units of the distance.

        Returns:
            ``(low, high)``, each a number or a tensor that broadcasts to ``(A, K)``; ``-inf`` and ``inf`` for no edge.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define window(d_ap, margin) -> (low, high)")

    def mine(self, block: Block[Result]) -> Result:
        """Mine one block of anchors by the window."""
        return block.mine_window(self)

    def check(self, distance: Distance, embeddings: Tensor) -> None:
        """Accept everything: a window works with any distance and any embeddings.

        Args:
            distance: The criterion's distance.
            embeddings: The references, ``(M, D)``, float32 or float64.
        """


class SelectingMiner(nn.Module):
    """A miner that selects single triplets, at most a few per positive pair. A custom one defines :meth:`select`.

    Attributes:
        any_order: False: random numbers belong to the positions of the anchors in the batch.
    """

    any_order = False

    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Choose triplets for a block of anchors.

        Args:
            distances: ``(A, M)``, without gradient.
            positive: Bool mask ``(A, M)``: which references are positives of each anchor.
            negative: Bool mask ``(A, M)``: which are negatives. The anchor itself is neither.
            margin: The criterion's margin, in units of the distance.
            uniform: ``uniform(n)`` returns ``(A, n)`` random numbers in [0, 1). Those of an anchor do not depend on the
                block size or the number of processes.

        Returns:
            The selected triplets.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select(distances, positive, ...) -> Triplets")

    def mine(self, block: Block[Result]) -> Result:
        """Mine one block of anchors by the selection."""
        return block.mine_selection(self)

    def check(self, distance: Distance, embeddings: Tensor) -> None:
        """Reject a distance or embeddings that the miner cannot work with. Accepts everything by default.

        Called before each selection.

        Args:
            distance: The criterion's distance.
            embeddings: The references, ``(M, D)``, float32 or float64.
        """


class PaddedMiner(SelectingMiner):
    """A selecting miner that returns its triplets padded, as all that come with the package do.

    A subclass defines :meth:`choose` in place of :meth:`select`.
    """

    def padded(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Choose triplets by :meth:`choose`; none for a block without positives."""
        column, valid, _ = block.slots
        return self.choose(block, margin, uniform) if column.numel() else PaddedTriplets(column, column, valid)

    def choose(self, block: Candidates, margin: float, uniform: Uniform) -> PaddedTriplets:
        """Choose triplets for a block of anchors.

        Args:
            block: Distances, positives and negatives.
            margin: The criterion's margin, in units of the distance.
            uniform: See :meth:`SelectingMiner.select`.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define choose(block, margin, uniform) -> PaddedTriplets")

    @override
    def select(
        self, distances: Tensor, positive: Tensor, negative: Tensor, margin: float, uniform: Uniform
    ) -> Triplets:
        """Choose triplets by :meth:`choose`, and drop the padding."""
        barred = (~negative).to(distances.dtype)  # (A, M)
        found = self.padded(candidates(distances, positive_slots(positive), barred), margin, uniform)
        anchor, place = found.valid.nonzero(as_tuple=True)  # (T,), (T,)
        return Triplets(anchor, found.positive[anchor, place], found.negative[anchor, place])
