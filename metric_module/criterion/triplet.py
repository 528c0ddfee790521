"""The triplet criterion: distance, miner and margin to loss and census.

Shapes: B = anchors, M = references, A = anchors in a block, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.criterion.blockwise import Walk, blockwise_loss
from metric_module.criterion.census import Census
from metric_module.criterion.finite import check_loss_is_finite, mark_overflow
from metric_module.criterion.inputs import MiningInput, check_input
from metric_module.criterion.loss import LossSettings, check_loss
from metric_module.criterion.loss_block import LossBlock
from metric_module.criterion.pairing import PairRule, pair_rule
from metric_module.criterion.rows import mine_rows
from metric_module.criterion.tiles import tile_walk
from metric_module.criterion.totals import BlockResult, Totals
from metric_module.distances import Distance
from metric_module.distances.base import on_device
from metric_module.errors import UserError
from metric_module.functional import at_least_float32, full_precision, in_float64_reach, move
from metric_module.keyed_random import combine, keyed_uniform
from metric_module.miners import Miner, Scheduled, SelectingMiner, WindowMiner

REDUCTIONS = ("mean_active", "mean", "sum")


class CriterionOutput(NamedTuple):
    """The loss, ``()`` and differentiable, and the census of the same call."""

    loss: Tensor
    census: Census


class TripletCriterion(nn.Module):
    """Triplet loss over the triplets that a miner selects, exact and in bounded memory.

    ``loss = sum over the selected (a, p, n) of l(d_ap - d_an + margin) / normaliser`` with ``l`` the hinge (Schroff et
    al. 2015, equation 3) or softplus (Hermans et al. 2017). The normaliser is the number of triplets with a non-zero
    loss (``mean_active``), of selected triplets (``mean``), or 1 (``sum``). Without any triplet the loss is 0, with
    zero gradient. Everything is computed in float32 or better, also under autocast, with sums in float64: on the device
    of the embeddings, or on the CPU if that device has no float64 (MPS). Loss and census are returned on their device.

    Args:
        distance: Distance between embeddings.
        miner: Selects the triplets.
        margin: In units of the distance; above 0 for hinge, 0 or more for soft.
        loss: ``"hinge"`` or ``"soft"``.
        reduction: ``"mean_active"``, ``"mean"`` or ``"sum"``.
        census: Whether to count the triplets of each category on every call.
        seed: Seed of the miner's random choices.

    Raises:
        UserError: If an argument is not allowed; on a call, if the input has the wrong shape or type, or it or a
            distance is not finite.

    Example:
        >>> from metric_module.distances import Euclidean
        >>> from metric_module.miners import All
        >>> criterion = TripletCriterion(Euclidean(), All(), margin=0.2)
        >>> embeddings = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0], [0.8, 0.6]], requires_grad=True)
        >>> output = criterion(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> output.census.semihard.item(), output.census.hard.item()
        (0, 2)
    """

    step: Tensor

    def __init_subclass__(cls) -> None:
        """Reject a subclass whose ``forward`` would never be called in training."""
        super().__init_subclass__()
        if "forward" in vars(cls) and "mine" not in vars(cls):
            raise UserError(f"{cls.__name__}: override mine(given, census); training calls it in place of forward")

    def __init__(
        self,
        distance: Distance,
        miner: Miner,
        margin: float = 0.2,
        loss: str = "hinge",
        reduction: str = "mean_active",
        census: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_loss(loss, margin)
        if reduction not in REDUCTIONS:
            raise UserError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        for name, part, kinds in (("distance", distance, Distance), ("miner", miner, Miner)):
            if not isinstance(part, kinds):
                expected = getattr(kinds, "__name__", "WindowMiner, SelectingMiner or Scheduled")
                raise UserError(f"{name}: expected a {expected}, got {type(part).__name__}")
        self.distance = distance
        self.miner = miner
        self.margin = margin
        self.loss = loss
        self.reduction = reduction
        self.census = census
        self.seed = seed
        self.substitute: Miner | None = None  # set by a callback: mines in place of the miner
        self.watch: Callable[[MiningInput], None] | None = None  # set by a callback: called before each batch is mined
        # Counts the training calls: the random choices of a step depend on it, so it is part of the state.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @override
    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        reference_ids: Tensor | None = None,
        positives: Tensor | None = None,
        negatives: Tensor | None = None,
        census: bool | None = None,
        first: int | None = None,
    ) -> CriterionOutput:
        """Mine and measure one batch.

        Args:
            embeddings: Anchors ``(B, D)``.
            labels: Class of each anchor, integers ``(B,)``; may be None if ``positives`` is given.
            reference: Positives and negatives are taken from these rows, ``(M, D)``. None: the batch is its own
                reference, and the diagonal is never a pair.
            reference_labels: Class of each reference, integers ``(M,)``.
            ids: Identity of each anchor, integers ``(B,)``.
            reference_ids: Identity of each reference, integers ``(M,)``. Equal ids are never a pair.
            positives: Bool mask ``(B, M)`` that replaces the labels.
            negatives: Bool mask ``(B, M)``; without it, every pair that is not positive is negative.
            census: Overrides the criterion's own ``census`` for this call.
            first: Position of the first anchor in a batch of all processes, of which the anchors are this process's
                shard. Loss and census are then those of the whole batch, and the gradient is scaled so that its mean
                over the processes is that of the whole batch. Every process must call with the same options. None:
                the anchors are the whole batch.

        Returns:
            Loss and census.

        Raises:
            UserError: If an input has the wrong shape or type, or an embedding is not finite.
        """
        given = MiningInput(
            embeddings, labels, reference, reference_labels, ids, reference_ids, positives, negatives, first
        )
        return self.mine(check_input(given), self.census if census is None else census)

    def mine(self, given: MiningInput, census: bool) -> CriterionOutput:
        """Mine and measure one batch that was checked before: :meth:`forward` without its checks.

        :class:`metric_module.TripletModule` calls this, and so does :meth:`forward`: a subclass overrides this one.

        Args:
            given: Embeddings, and labels or masks, as :func:`metric_module.criterion.inputs.check_input`
                returns them.
            census: Whether to count the triplets of each category.
        """
        if self.watch is not None:
            self.watch(given)
        placed = MiningInput(*(in_float64_reach(part) for part in given))
        rule = pair_rule(placed, sort=self.current_miner.any_order)
        query = rule.ordered(at_least_float32(placed.embeddings))  # (B, D)
        target = None if placed.reference is None else at_least_float32(placed.reference)  # (M, D)
        distance, learnable = on_device(self.distance, query.device)
        settings = LossSettings(self.margin, self.loss, census, census or self.reduction == "mean")
        walk: Walk | None = tile_walk(rule, distance, query, self.current_miner, settings)
        if walk is None:
            walk = self._row_walk(rule, distance, settings, given.first or 0)
        with full_precision(placed.embeddings.device.type):
            self._miner.check(self.distance, query if target is None else target)
            loss, totals = blockwise_loss(
                query, target, distance, learnable, walk, self._divisor, all_processes=given.first is not None
            )
        check_loss_is_finite(totals.loss, self.distance, placed.embeddings, placed.reference)
        if self.training:
            self.step += 1
            if isinstance(self.miner, Scheduled):
                self.miner.step += 1
        device = given.embeddings.device
        counted = (None if part is None else move(part, device) for part in _census(totals))
        return CriterionOutput(move(loss, device), Census._make(counted))

    def _row_walk(self, rule: PairRule, distance: Distance, settings: LossSettings, first: int) -> Walk:
        """Mine blocks of anchors among all references; ``first`` is the place of anchor 0 in the global batch."""
        miner = self.current_miner
        by_pair = isinstance(miner, SelectingMiner) and distance.has_pairs

        def mine_block(distances: Tensor, rows: slice, gradient: bool) -> BlockResult:
            """Sum the loss of the anchors in ``rows``."""

            def uniform(n: int) -> Tensor:
                """Random numbers ``(A, n)``; few miners ask for any."""
                place = torch.arange(first + rows.start, first + rows.stop, device=distances.device)
                return self.uniform(place, n)

            block = LossBlock(distances, rule, rows, uniform, settings, gradient, by_pair)
            return mark_overflow(distances, miner.mine(block))

        return partial(mine_rows, terms=mine_block, read=rule.read, by_pair=by_pair)

    @property
    def current_miner(self) -> WindowMiner | SelectingMiner:
        """The miner in force: the substitute or the criterion's own; of a schedule, the one for this step or epoch."""
        miner = self._miner
        return miner.current if isinstance(miner, Scheduled) else miner

    @property
    def _miner(self) -> Miner:
        return self.miner if self.substitute is None else self.substitute

    def uniform(self, place: Tensor, n: int) -> Tensor:
        """Draw random numbers for anchors in this step, as a function of seed, step and place only.

        Args:
            place: Positions of the anchors in the batch of all processes, int64 ``(A,)``.
            n: Number of random numbers for each anchor.

        Returns:
            Numbers in [0, 1), ``(A, n)``.
        """
        return keyed_uniform(combine(self.seed, self.step.to(place.device), place), n)

    def _divisor(self, totals: Totals) -> Tensor:
        """Divisor of the summed loss, ``()``."""
        if self.reduction == "sum":
            return torch.ones_like(totals.active)
        counted = totals.active if self.reduction == "mean_active" else totals.selected
        assert counted is not None  # reduction "mean" always counts the selected triplets
        return counted


def _census(totals: Totals) -> Census:
    """Convert the totals to the public census."""
    taken = totals.census
    easy, semihard, hard, d_ap, d_an = (None,) * 5
    if taken is not None:
        easy, semihard, hard = taken[:3]
        d_ap, d_an = taken.sum_d_ap / taken.positive_pairs, taken.sum_d_an / taken.negative_pairs
    lone = totals.rows - totals.anchors
    return Census(easy, semihard, hard, totals.selected, totals.active, totals.anchors, lone, d_ap, d_an)
