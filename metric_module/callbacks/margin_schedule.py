"""A margin that changes during training."""

from __future__ import annotations

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from metric_module.criterion import TripletCriterion
from metric_module.criterion.loss import check_loss
from metric_module.errors import UserError


class MarginSchedule(Callback):
    """Schedule that moves the margin from its configured value to another, and logs it as ``train/margin``.

    ``margin = (1 - w) * configured + w * end``, where ``w`` rises from 0 to 1 between two points of training, linearly
    (``w = p``) or half a cosine (``w = (1 - cos(pi * p)) / 2``). It depends on the number of optimizer steps taken
    and on nothing else, so a resumed training has the same margins. A validation within training uses the margin of
    the step before it; after training the criterion has its configured margin again, so that the last figures equal
    those of an evaluation of the checkpoint.

    Args:
        end: The last margin, in units of the distance.
        start_fraction: Share of training's steps after which the margin starts to move, in [0, 1).
        end_fraction: Share of the steps after which it has reached ``end``, in (start_fraction, 1].
        shape: ``"linear"`` or ``"cosine"``.

    Raises:
        UserError: If an argument is out of range; when training starts, if the module has no
            :class:`metric_module.TripletCriterion`, its loss does not allow ``end``, or training has no known length.
    """

    def __init__(
        self,
        end: float,
        start_fraction: float = 0.0,
        end_fraction: float = 1.0,
        shape: Literal["linear", "cosine"] = "linear",
    ) -> None:
        if not 0 <= start_fraction < end_fraction <= 1:
            raise UserError(
                "margin_schedule: expected 0 <= start_fraction < end_fraction <= 1, got "
                f"start_fraction={start_fraction}, end_fraction={end_fraction}"
            )
        if shape not in {"linear", "cosine"}:
            raise UserError(f"margin_schedule.shape: expected linear or cosine, got {shape!r}")
        self.end = end
        self.start_fraction = start_fraction
        self.end_fraction = end_fraction
        self.shape = shape
        self._configured: float | None = None

    def margin(self, configured: float, step: int, total_steps: int) -> float:
        """Compute the margin after a number of optimizer steps.

        Args:
            configured: The margin at the start.
            step: Number of optimizer steps taken.
            total_steps: Number of optimizer steps of the whole training.

        Returns:
            A margin between ``configured`` and ``end``.

        Example:
            >>> MarginSchedule(end=0.1, start_fraction=0.5).margin(0.3, step=75, total_steps=100)
            0.2
        """
        first, last = self.start_fraction * total_steps, self.end_fraction * total_steps
        weight = min(1.0, max(0.0, (step - first) / (last - first)))
        if self.shape == "cosine":
            weight = (1 - math.cos(math.pi * weight)) / 2
        return (1 - weight) * configured + weight * self.end

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the criterion's loss allows ``end``, and remember the configured margin."""
        if stage != "fit":
            return
        criterion = _criterion(pl_module)
        try:
            check_loss(criterion.loss, self.end)
        except UserError as error:
            raise UserError(f"margin_schedule.end: {str(error).removeprefix('margin: ')}") from None
        self._configured = criterion.margin

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the margin of this step, and log it."""
        self._move(trainer, pl_module)
        pl_module.log("train/margin", _criterion(pl_module).margin)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the margin for the steps taken so far."""
        self._move(trainer, pl_module)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the configured margin."""
        self._restore(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the configured margin also if training fails."""
        self._restore(pl_module)

    def _move(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._configured is None:
            return
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UserError("margin_schedule: expected a training of known length; give max_epochs or max_steps")
        _criterion(pl_module).margin = self.margin(self._configured, trainer.global_step, int(steps))

    def _restore(self, pl_module: LightningModule) -> None:
        if self._configured is not None:
            _criterion(pl_module).margin = self._configured
            self._configured = None


def _criterion(module: LightningModule) -> TripletCriterion:
    criterion = getattr(module, "criterion", None)
    if not isinstance(criterion, TripletCriterion):
        raise UserError(f"margin_schedule: expected a module with a TripletCriterion, {type(module).__name__} has none")
    return criterion
