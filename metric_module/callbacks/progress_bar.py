"""The progress bar of training, and one line of figures after each validation."""

from __future__ import annotations

import math
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from typing_extensions import override

_SHOWN = ("train/loss", "train/easy", "train/semihard", "train/hard", "val/loss", "val/recall_at_1", "val/map_at_r")


class ProgressBar(TQDMProgressBar):
    """Progress bar with the loss and the shares of easy, semi-hard and hard triplets.

    After each validation it prints a line of figures. Without a terminal there are only these lines.

    Args:
        refresh_rate: Batches between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._start = ""

    @property
    @override
    def sanity_check_description(self) -> str:
        """Label of the bar of the sanity check, which may read the whole validation set."""
        return "Before training" if _measures_start(self.trainer) else super().sanity_check_description

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Disable the bar if the output is not a terminal."""
        super().setup(trainer, pl_module, stage)
        if not sys.stdout.isatty():
            self.disable()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the encoder, the number of parameters and of steps, and the figures before training."""
        super().on_train_start(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        name = type(getattr(pl_module, "encoder", pl_module)).__name__
        numbers = sum(parameter.numel() for parameter in pl_module.parameters())
        steps = trainer.estimated_stepping_batches
        self._say(f"{name}, {numbers:,} parameters, {steps} steps")
        epochs = trainer.max_epochs or -1
        if steps == trainer.max_steps < epochs * trainer.num_training_batches // trainer.accumulate_grad_batches:
            limits = f"trainer.max_steps={steps} ends training before trainer.max_epochs={epochs}"
            self._say(f"{limits}; give trainer.max_steps=-1 to train all epochs")
        if self._start:
            self._say(self._start)

    @override
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures of the whole validation set before training."""
        super().on_sanity_check_end(trainer, pl_module)
        self._start = f"before training  {figures_line(trainer)}" if _measures_start(trainer) else ""

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Figures in the bar, without the prefix ``train/``."""
        figures = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        return {name.removeprefix("train/"): value for name, value in figures.items()}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the figures of a validation within training."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and trainer.is_global_zero and not trainer.sanity_checking:
            self._say(line(trainer))

    def _say(self, text: str) -> None:
        """Print above the bar if there is one."""
        if self.is_enabled:
            self.print(text)
        else:
            print(text, flush=True)


def _measures_start(trainer: Trainer) -> bool:
    """Whether the sanity check reads the whole validation set, as :class:`BeforeTraining` makes it."""
    return trainer.num_sanity_val_steps == math.inf


def line(trainer: Trainer) -> str:
    """Format epoch, step and figures as one line.

    Args:
        trainer: A trainer that is training.

    Returns:
        For example ``epoch 2  step 80  loss 0.141  easy 0.902 ...``.
    """
    return f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}  {figures_line(trainer)}"


def figures_line(trainer: Trainer) -> str:
    """Format the last figures, ``loss 0.141  easy 0.902 ...``.

    Args:
        trainer: A trainer that is training.
    """
    figures: dict[str, Any] = {**trainer.progress_bar_metrics, **trainer.callback_metrics}
    monitored = (getattr(saver, "monitor", None) for saver in trainer.checkpoint_callbacks)
    names = dict.fromkeys(
        [*_SHOWN, *(name for name in monitored if name is not None and name not in ("epoch", "step"))]
    )
    words = [f"{name.removeprefix('train/')} {float(figures[name]):.3f}" for name in names if name in figures]
    return "  ".join(words)
