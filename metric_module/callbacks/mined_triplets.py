"""Examples of mined triplets, kept for the report.

Shapes: B = samples of this process's batch, M = references, T = triplets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from typing_extensions import override

from metric_module.callbacks.random_state import random_state, set_random_state
from metric_module.criterion import TripletCriterion
from metric_module.criterion.examples import named_triplets
from metric_module.criterion.inputs import MiningInput
from metric_module.distributed import gather_rows, row_counts
from metric_module.module import TripletModule


class MinedTriplets(Callback):
    """Examples of mined triplets of the first, the middle and the last step of training.

    Batches must have ids (:class:`metric_module.Batch`) and labels; otherwise nothing is kept. With several processes
    the anchors are those of the first one, their positives and negatives those of all. Training does not change: no
    random number is drawn, and nothing is logged. A checkpoint holds the triplets kept so far, as plain values.

    Args:
        count: Largest number of triplets of each step.

    Attributes:
        mined: By phase, ``start``, ``middle`` and ``end``: ``step``, ``steps`` of the whole training, ``margin``, the
            ``miner``'s name, ``ids`` int64 ``(T, 3)`` of anchor, positive and negative, ``distances`` ``(T, 2)`` to
            positive and negative.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self.mined: dict[str, dict[str, Any]] = {}

    @override
    def state_dict(self) -> dict[str, Any]:
        """Triplets kept so far."""
        return {"mined": {phase: dict(kept) for phase, kept in self.mined.items()}}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with the triplets of a checkpoint."""
        self.mined = {phase: dict(kept) for phase, kept in state_dict["mined"].items()}

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Watch the criterion in one of the three steps."""
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        phase = _phase(step, steps)
        with_ids = isinstance(batch, tuple | list) and len(batch) == 3
        if phase is None or not with_ids or not isinstance(pl_module, TripletModule):
            return
        if self.mined.get(phase, {}).get("step") == step:  # a later batch of a step with accumulated gradients
            return
        index, remembers = batch[2], pl_module.memory is not None

        def watch(given: MiningInput) -> None:
            """Name triplets of a batch that is about to be mined."""
            before = random_state()  # a user's own miner may draw
            kept = _named(pl_module.criterion, given, index, remembers, self.count)
            set_random_state(before)
            if kept is not None:
                total = int(steps) if math.isfinite(steps) else None
                self.mined[phase] = {"step": step, "steps": total, **kept}

        pl_module.criterion.watch = watch

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Stop watching the criterion."""
        _stop_watching(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching the criterion."""
        _stop_watching(pl_module)


def _stop_watching(module: LightningModule) -> None:
    if isinstance(module, TripletModule):
        module.criterion.watch = None


def _phase(step: int, steps: float) -> str | None:
    """Name of this step's phase, or None; in a short training the earlier of two phases counts."""
    if step == 0:
        return "start"
    if step == steps // 2 and step < steps - 1:
        return "middle"
    return "end" if step == steps - 1 else None


def _named(
    criterion: TripletCriterion, given: MiningInput, index: Tensor, remembers: bool, count: int
) -> dict[str, Any] | None:
    """Name triplets of one batch by the ids of their samples; None if masks decide about its pairs.

    Every process must call it.

    Args:
        criterion: The criterion that mines.
        given: Its input.
        index: Ids of this process's samples, int64 ``(B,)``.
        remembers: Whether the references include a memory, so that ``reference_ids`` are ids of samples.
        count: Largest number of triplets.
    """
    if given.positives is not None or given.negatives is not None:
        return None
    if given.reference is None:
        names = index  # (M,)
    elif remembers and given.reference_ids is not None:
        names = given.reference_ids
    else:
        names = gather_rows(index, row_counts(index))
    found = named_triplets(criterion, given, limit=count)
    index, names = index.to(found.anchor.device), names.to(found.anchor.device)
    rows = (index[found.anchor], names[found.positive], names[found.negative])
    return {
        "margin": float(criterion.margin),
        "miner": type(criterion.current_miner).__name__,
        "ids": torch.stack(rows, dim=1).cpu(),  # (T, 3)
        "distances": torch.stack([found.d_ap, found.d_an], dim=1).float(),  # (T, 2)
    }
