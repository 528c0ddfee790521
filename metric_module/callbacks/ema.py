"""Exponential moving average of the weights."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError


class EMA(WeightAveraging):
    """Exponential moving average of weights and buffers, taken after every optimizer step.

    ``average <- d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))`` after ``n`` steps: the
    initial weights soon lose their influence. Validation uses the average, a checkpoint's ``state_dict`` holds it, and
    the module has it when training ends. The checkpoint also holds the plain weights, and training continues from them.

    Args:
        decay: Weight of the past, in [0, 1).

    Raises:
        UserError: If ``decay`` is out of range.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"ema: expected 0 <= decay < 1, got {decay}")
        self.decay = decay
        self._put = False
        super().__init__(multi_avg_fn=self._average)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the average into the module."""
        super().on_train_end(trainer, pl_module)
        self._put = True

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the average also if the checkpoint was of a finished training, so that no step was taken."""
        if not self._put and self._average_model is not None:
            self._copy_average_to_current(pl_module)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the average: Lightning would use it again in a later validation, but not in a test."""
        self._average_model = None

    def _average(self, averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        """Move every average towards its weight, in place; copy integers."""
        step = max(1 - self.decay, 9 / (10 + int(count)))
        for average, weight in zip(averages, weights, strict=True):
            if average.is_floating_point():
                average.lerp_(weight, step)
            else:
                average.copy_(weight)
