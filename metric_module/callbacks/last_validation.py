"""Sees to it that training does not end without a validation."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override


class LastValidation(Callback):
    """Validates after the last epoch and after step ``max_steps``, whatever ``check_val_every_n_epoch`` says.

    Without it, three epochs with a validation every five would end without a best checkpoint.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for it also if training continues within the last epoch, whose start Lightning does not announce."""
        self.on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for a validation after the last epoch."""
        if trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs - 1:
            _validate_this_epoch(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """After the last step, ask to stop: Lightning validates then, but not when it runs out of steps."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            _validate_this_epoch(trainer)
            trainer.should_stop = True


def _validate_this_epoch(trainer: Trainer) -> None:
    if trainer.check_val_every_n_epoch is not None:
        trainer.check_val_every_n_epoch = 1
