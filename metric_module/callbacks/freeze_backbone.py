"""Keeps a pretrained backbone still while the head settles."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from metric_module.errors import UserError


class FreezeBackbone(Callback):
    """Freezes ``encoder.backbone`` for the first epochs: no gradients, and BatchNorm and dropout as in evaluation.

    The optimizer holds the backbone's parameters from the start, so training goes on with the same optimizer and
    schedule.
    With DDP, use ``trainer.strategy=ddp_find_unused_parameters_true``.

    Args:
        epochs: How many epochs it stays frozen.

    Raises:
        UserError: If ``epochs`` is negative; when training starts, if the encoder has no ``backbone``.
    """

    def __init__(self, epochs: int = 1) -> None:
        if epochs < 0:
            raise UserError(f"freeze_backbone.epochs: expected an integer >= 0, got {epochs}")
        self.epochs = epochs
        self._frozen: list[nn.Parameter] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the backbone."""
        _backbone(pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Freeze or unfreeze as the epoch asks; before every batch, whenever Lightning calls ``train()``."""
        backbone = _backbone(pl_module)
        if trainer.current_epoch >= self.epochs:
            self._unfreeze(pl_module)
            return
        if not self._frozen:
            self._frozen = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
            backbone.requires_grad_(False)
        if any(module.training for module in backbone.modules()):
            backbone.eval()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the backbone as training found it, even if it stopped early."""
        self._unfreeze(pl_module)

    def _unfreeze(self, pl_module: LightningModule) -> None:
        """Free what this callback froze, and nothing that the encoder keeps frozen itself."""
        if self._frozen:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            pl_module.train()
            self._frozen = []


def _backbone(module: LightningModule) -> nn.Module:
    encoder = getattr(module, "encoder", None)
    backbone = getattr(encoder, "backbone", None)
    if not isinstance(backbone, nn.Module):
        name = type(encoder).__name__
        raise UserError(f"freeze_backbone: expected an encoder with a module `backbone`, {name} has none")
    return backbone
