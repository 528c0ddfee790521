"""When a training validates, if its configuration leaves that open."""

from __future__ import annotations

from omegaconf import DictConfig

VALIDATIONS = 8


def resolve_validations(trainer: DictConfig) -> None:
    """Replace ``val_check_interval: null`` and ``check_val_every_n_epoch: null`` by an eighth of the run.

    If only one of them is null, it follows the other: a share of an epoch is validated in every epoch, and a number of
    batches is counted across epochs.

    Args:
        trainer: The configuration of the trainer, which is changed.
    """
    if trainer.check_val_every_n_epoch is not None:
        return
    if trainer.val_check_interval is not None:
        trainer.check_val_every_n_epoch = 1 if isinstance(trainer.val_check_interval, float) else None
    elif (trainer.max_epochs or -1) > 0:
        trainer.check_val_every_n_epoch = max(1, trainer.max_epochs // VALIDATIONS)
    elif trainer.max_steps > 0:
        trainer.val_check_interval = max(1, trainer.max_steps // VALIDATIONS) * trainer.accumulate_grad_batches
    else:
        trainer.check_val_every_n_epoch = 1
