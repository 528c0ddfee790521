"""Freezing of a pretrained backbone for the first epochs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.training.sharded_strategy import refuse_sharded


class FreezeBackbone(Callback):
    """Frozen ``encoder.backbone`` in the first epochs: no gradients, and BatchNorm and dropout as in evaluation.

    The optimizer holds the backbone's parameters from the start, so optimizer and schedule need no change later. With
    DDP, use ``trainer.strategy=ddp_find_unused_parameters_true``.

    Args:
        epochs: Number of epochs with a frozen backbone.

    Raises:
        UserError: If ``epochs`` is negative; when training starts, if the encoder has no ``backbone``, or with
            ``trainer=fsdp``.
    """

    def __init__(self, epochs: int = 1) -> None:
        if epochs < 0:
            raise UserError(f"freeze_backbone.epochs: expected an integer >= 0, got {epochs}")
        self.epochs = epochs
        self._frozen: list[nn.Parameter] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the strategy, and that the encoder has a backbone."""
        self.check_strategy(trainer)
        _backbone(pl_module)

    def check_strategy(self, trainer: Trainer) -> None:
        """Reject a trainer that shards the weights.

        Args:
            trainer: The trainer.

        Raises:
            UserError: If it does.
        """
        refuse_sharded(trainer, "callbacks.freeze_backbone", "what has a gradient is fixed once weights are sharded")

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Freeze or unfreeze for this epoch; before every batch, as Lightning may have called ``train()``."""
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
        """Unfreeze the backbone, also if training stopped early."""
        self._unfreeze(pl_module)

    def _unfreeze(self, pl_module: LightningModule) -> None:
        """Unfreeze the parameters that this callback froze, and no others."""
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
