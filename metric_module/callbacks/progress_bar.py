"""What a user sees while training runs."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from typing_extensions import override

_SHOWN = ("train/loss", "train/easy", "train/semihard", "train/hard", "val/loss", "val/recall_at_1", "val/map_at_r")


class ProgressBar(TQDMProgressBar):
    """A bar with the loss and the shares of easy, semi-hard and hard triplets, and a line after every validation.

    Without a terminal there is no bar, only the lines.

    Args:
        refresh_rate: Batches between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Turn the bar off where it cannot be drawn."""
        super().setup(trainer, pl_module, stage)
        if not sys.stdout.isatty():
            self.disable()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what will be trained, and for how long."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            name = type(getattr(pl_module, "encoder", pl_module)).__name__
            numbers = sum(parameter.numel() for parameter in pl_module.parameters())
            self._say(f"{name}, {numbers:,} parameters, {trainer.estimated_stepping_batches} steps")

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures in the bar: those of training by their bare names."""
        figures = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        return {name.removeprefix("train/"): value for name, value in figures.items()}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what training has reached."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and trainer.is_global_zero and not trainer.sanity_checking:
            self._say(line(trainer))

    def _say(self, text: str) -> None:
        """Print above the bar, or without one."""
        if self.is_enabled:
            self.print(text)
        else:
            print(text, flush=True)


def line(trainer: Trainer) -> str:
    """Epoch, step and figures in one line.

    Args:
        trainer: In training.

    Returns:
        For example ``epoch 2  step 80  loss 0.141  easy 0.902 ...``.
    """
    known: dict[str, Any] = {**trainer.progress_bar_metrics, **trainer.callback_metrics}
    words = [f"{name.removeprefix('train/')} {float(known[name]):.3f}" for name in _SHOWN if name in known]
    return "  ".join([f"epoch {trainer.current_epoch + 1}", f"step {trainer.global_step}", *words])
