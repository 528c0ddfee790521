"""Build module, data module and trainer from a configuration."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from metric_module.callbacks import BeforeTraining, MinedTriplets
from metric_module.config.arguments import check_arguments
from metric_module.config.messages import one_line
from metric_module.config.plain import plain
from metric_module.distances import Distance
from metric_module.encoders import Encoder
from metric_module.errors import UserError
from metric_module.evaluation import MetricGroup
from metric_module.module import TripletModule
from metric_module.storage.checkpoints import WholeCheckpointIO
from metric_module.storage.weights import load_encoder
from metric_module.sweeps.settings import lower_is_better
from metric_module.training.memory import CrossBatchMemory

GROUPS = (
    "encoder",
    "distance",
    "miner",
    "criterion",
    "datamodule",
    "optimizer",
    "scheduler",
    "evaluation",
    "trainer",
    "logger",
    "callbacks",
)

KEPT = ("encoder", "distance", "miner", "criterion", "margin", "datamodule")
"""Keys of the configuration that a checkpoint keeps: the weights and the figures depend on them."""

# Advice of Lightning that does not apply to our defaults.
_IGNORED = (
    ".*does not have many workers.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*LeafSpec.* is deprecated.*",
    ".*module.* in eval mode at the start of training.*",  # encoder.frozen
    "The dirpath has changed from .*",
    ".*recommended to use `self.log.*sync_dist=True.*",
)


class Parts(NamedTuple):
    """Module, data module and trainer of a task."""

    module: TripletModule
    datamodule: LightningDataModule
    trainer: Trainer


def build(cfg: DictConfig, encoder_weights: bool = True) -> Parts:
    """Seed every random number generator, check every group, and build module, data module and trainer.

    Args:
        cfg: The composed configuration.
        encoder_weights: Whether to load the file ``module.encoder_weights``, if there is one; a checkpoint that is
            loaded afterwards has newer weights.

    Returns:
        Module, data module and trainer.

    Raises:
        UserError: If an argument does not fit its part, or a part needs a package that is not installed.
    """
    cfg = plain(cfg)
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message)
    for group in GROUPS:
        check_arguments(group, OmegaConf.to_container(cfg[group]))
    # Otherwise trainer.deterministic also fills every new tensor with NaN first, a tenth of the time on CPUs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule: LightningDataModule = _build(cfg, "datamodule")
    criterion = _build(cfg, "criterion")
    optimizer = _build(cfg, "optimizer")
    _try_out(optimizer)
    encoder: Encoder = _build(cfg, "encoder")
    settings: Any = OmegaConf.to_container(cfg.module)
    weights = settings.pop("encoder_weights")
    if weights is not None and encoder_weights:
        load_encoder(encoder, weights)
    module = TripletModule(
        encoder=encoder,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=_build(cfg, "scheduler"),
        metric=_metric(cfg, criterion.distance),
        memory=_memory(cfg, encoder),
        **settings,
    )
    whole: Any = OmegaConf.to_container(cfg)
    module.config = {key: whole[key] for key in KEPT}
    return Parts(module, datamodule, _trainer(cfg))


def _trainer(cfg: DictConfig) -> Trainer:
    loggers: list[Logger] = list(_build(cfg, "logger").values())
    for node in cfg.callbacks.values():
        if node.get("mode") == "auto":
            node.mode = "min" if lower_is_better(node.monitor) else "max"
    callbacks = [callback for callback in _build(cfg, "callbacks").values() if _has_use(callback, cfg, loggers)]
    plugins = [*(instantiate(cfg.trainer.plugins, _convert_="all") or []), WholeCheckpointIO()]
    trainer: Trainer = _build(cfg, "trainer", logger=loggers, callbacks=callbacks, plugins=plugins)
    check_reader(trainer.strategy)
    return trainer


def check_reader(strategy: Strategy) -> None:
    """Reject a strategy that reads checkpoints itself: FSDP, DeepSpeed and the model-parallel one unpickle anything.

    Args:
        strategy: The trainer's strategy.

    Raises:
        UserError: If it does not read through the checkpoint plugin, which takes plain values and tensors alone.
    """
    if type(strategy).load_checkpoint is not Strategy.load_checkpoint:
        raise UserError(
            f"trainer.strategy: {type(strategy).__name__} has a reader of checkpoints that can run code in them; "
            "give trainer.strategy=ddp"
        )


def _has_use(callback: Callback, cfg: DictConfig, loggers: list[Logger]) -> bool:
    """Return whether a callback is of use; Lightning rejects callbacks for features that are switched off."""
    off = (
        (ProgressBar, cfg.trainer.enable_progress_bar is False),
        (Checkpoint, cfg.trainer.enable_checkpointing is False),
        (LearningRateMonitor, not loggers),
        (BeforeTraining | MinedTriplets, not cfg.report),
    )
    return not any(switched_off and isinstance(callback, kind) for kind, switched_off in off)


def _metric(cfg: DictConfig, distance: Distance) -> MetricGroup:
    """Build the metrics of the evaluation, all with the criterion's distance."""
    if "_target_" in cfg.evaluation:
        raise UserError("evaluation: expected metrics by name, {retrieval: {_target_: ...}}, got a single _target_")
    return MetricGroup([_built("evaluation", node, distance=distance) for node in cfg.evaluation.values()])


def _memory(cfg: DictConfig, encoder: Encoder) -> CrossBatchMemory | None:
    if not cfg.memory.size:
        return None
    width = getattr(encoder, "embedding_dim", None)
    return CrossBatchMemory(cfg.memory.size, width, cfg.memory.warmup_steps)  # type: ignore[arg-type]  # refuses None


def _try_out(optimizer: Callable[..., Optimizer]) -> None:
    """Find values that the optimizer rejects before any data is read."""
    try:
        optimizer([torch.zeros(1, requires_grad=True)])
    except ValueError as error:
        raise UserError(f"optimizer: {one_line(error)}") from error


def _build(cfg: DictConfig, group: str, **parts: Any) -> Any:
    """Instantiate a group recursively, with plain lists and dicts for its values."""
    return _built(group, cfg[group], **parts)


def _built(group: str, node: DictConfig, **parts: Any) -> Any:
    """Instantiate a node of a group; unwrap the error that a constructor raised."""
    try:
        return instantiate(node, _convert_="all", **parts)
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ModuleNotFoundError) and group == "logger":
            raise UserError(f"{group}: a package is missing ({str(cause).splitlines()[0]})") from None
        if isinstance(cause, ValueError | TypeError) and group == "trainer":
            raise UserError(f"{group}: {one_line(cause)}") from None
        raise cause from None
