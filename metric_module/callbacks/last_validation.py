"""A validation at the end of training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override


class LastValidation(Callback):
    """Validation after the last epoch and after step ``max_steps``, whenever the other validations are.

    Without it, three epochs with a validation every five would end without a best checkpoint.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Request the validation also on a resume within the last epoch, for which no epoch start is called."""
        self.on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Request a validation after the last epoch."""
        if trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs - 1:
            _validate_this_epoch(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Request a stop after the last step: Lightning then validates, but not when it reaches its limits."""
        in_last_epoch = trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs - 1
        counts_steps = trainer.check_val_every_n_epoch is None
        if 0 <= trainer.max_steps <= trainer.global_step or (counts_steps and in_last_epoch and trainer.is_last_batch):
            _validate_this_epoch(trainer)
            trainer.should_stop = True


def _validate_this_epoch(trainer: Trainer) -> None:
    if trainer.check_val_every_n_epoch is not None:
        trainer.check_val_every_n_epoch = 1
