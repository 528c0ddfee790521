"""Build module, data module and trainer from a configuration."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig, OmegaConf

from metric_module.callbacks import CheckFigures, MinedTriplets, SharedFolder
from metric_module.config.plain import plain
from metric_module.config.schema import KEPT
from metric_module.criterion import TripletCriterion
from metric_module.encoders import Encoder
from metric_module.errors import UserError
from metric_module.evaluation import MetricGroup
from metric_module.module import TripletModule
from metric_module.storage.checkpoints import WholeCheckpointIO
from metric_module.storage.weights import for_training, load_encoder
from metric_module.tasks.parts import GROUPS, build_group, check_group, try_out
from metric_module.training.memory import CrossBatchMemory
from metric_module.training.monitor import resolve_monitor
from metric_module.training.validation_interval import resolve_validations

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


COMPARED = ("callbacks", "memory", "module", "monitor", "optimizer", "scheduler", "seed", "trainer")
"""Further keys that a checkpoint keeps, to be compared with the options of a run that resumes from it."""


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
    whole: Any = OmegaConf.to_container(cfg)
    for name in GROUPS:
        check_group(name, whole[name])
    # Otherwise trainer.deterministic also fills every new tensor with NaN first, a tenth of the time on CPUs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule: LightningDataModule = build_group("datamodule", whole["datamodule"])
    criterion: TripletCriterion = build_group("criterion", whole["criterion"])
    optimizer = build_group("optimizer", whole["optimizer"])
    scheduler = build_group("scheduler", whole["scheduler"])
    try_out(optimizer, scheduler)
    encoder: Encoder = build_group("encoder", whole["encoder"])
    settings = dict(whole["module"])
    weights = settings.pop("encoder_weights")
    if weights is not None and encoder_weights:
        load_encoder(encoder, weights)
        for_training(encoder)
    metric = MetricGroup([*build_group("evaluation", whole["evaluation"], {"distance": criterion.distance}).values()])
    resolve_monitor(cfg, metric)
    resolve_validations(cfg.trainer)
    module = TripletModule(
        encoder=encoder,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=scheduler,
        metric=metric,
        memory=_memory(cfg, encoder),
        **settings,
    )
    module.config = {key: whole[key] for key in (*KEPT, *COMPARED)}
    return Parts(module, datamodule, _trainer(cfg))


def _trainer(cfg: DictConfig) -> Trainer:
    """Build the trainer, with the callbacks as :func:`resolve_monitor` has left them."""
    nodes: Any = {name: OmegaConf.to_container(cfg[name]) for name in ("logger", "callbacks", "trainer")}
    loggers: list[Logger] = [*build_group("logger", nodes["logger"]).values()]
    callbacks = [one for one in build_group("callbacks", nodes["callbacks"]).values() if _has_use(one, cfg, loggers)]
    callbacks += [SharedFolder(cfg.output_dir), CheckFigures(cfg.monitor, test=cfg.test is not False)]
    plugins = [*(instantiate(cfg.trainer.plugins, _convert_="all") or []), WholeCheckpointIO()]
    trainer: Trainer = build_group(
        "trainer", nodes["trainer"], {"logger": loggers, "callbacks": callbacks, "plugins": plugins}
    )
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
            "give trainer=ddp, or trainer=fsdp"
        )


def _has_use(callback: Callback, cfg: DictConfig, loggers: list[Logger]) -> bool:
    """Return whether a callback is of use; Lightning rejects callbacks for features that are switched off."""
    off = (
        (ProgressBar, cfg.trainer.enable_progress_bar is False),
        (Checkpoint, cfg.trainer.enable_checkpointing is False),
        (LearningRateMonitor, not loggers),
        (MinedTriplets, not cfg.report),
    )
    return not any(switched_off and isinstance(callback, kind) for kind, switched_off in off)


def _memory(cfg: DictConfig, encoder: Encoder) -> CrossBatchMemory | None:
    if not cfg.memory.size:
        return None
    width = getattr(encoder, "embedding_dim", None)
    try:
        return CrossBatchMemory(cfg.memory.size, width, cfg.memory.warmup_steps)  # type: ignore[arg-type]  # refuses None
    except RuntimeError as error:
        raise UserError(
            f"memory.size: {cfg.memory.size} embeddings of {width} numbers do not fit into memory"
        ) from error
