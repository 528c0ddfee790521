"""Checkpoints in tasks: find the file, restore the configuration it was trained with, and load its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metric_module.config.checks import check
from metric_module.config.messages import one_line
from metric_module.config.plain import check_size, plain
from metric_module.config.renamed import rename_targets
from metric_module.config.schema import KEPT
from metric_module.config.trust import leaves
from metric_module.distributed import shard_like
from metric_module.errors import UserError
from metric_module.module import TripletModule
from metric_module.preprocessing import from_json
from metric_module.storage.checkpoints import load_checkpoint, newest_checkpoint
from metric_module.storage.weights import for_use, plain_name, read_usage, without_compile
from metric_module.tasks.build import Parts, build
from metric_module.tasks.trained_inputs import read_as_trained

_TRAINING_ONLY = ("memory.", "criterion.miner.")
"""State that an evaluation does without: a checkpoint can be evaluated with another miner, and without its memory."""


_LINKS = ("${distance}", "${miner}", "${margin}", "${seed}", "${module.gather}", "${..user.embedding_dim}")
"""The only interpolations in a checkpoint: those of our yaml files, which older versions kept."""


class Restored(NamedTuple):
    """A run as a task sees it after training.

    Attributes:
        cfg: The configuration, with what the checkpoint was trained with.
        parts: Module, data module and trainer.
        weights: Path of the checkpoint or of the encoder's weights; None for an encoder as it was built.
        data: Fingerprint of the data that the checkpoint was trained on; None if it is not known.
    """

    cfg: DictConfig
    parts: Parts
    weights: str | None
    data: str | None


def restore(cfg: DictConfig) -> Restored:
    """Build the parts of a run, and load the weights of ``cfg.ckpt_path`` if there is one.

    From the command line, encoder, distance, criterion and data are those that the checkpoint was trained with, except
    for the options that were typed.

    Args:
        cfg: The composed configuration.

    Returns:
        The configuration, the parts, and where the weights came from.

    Raises:
        UserError: If the configuration is wrong, there is no checkpoint, or it does not fit the encoder.
    """
    cfg = plain(cfg)
    path = find_checkpoint(cfg)
    if path is None and cfg.ckpt_path is not None:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: no checkpoint in {cfg.output_dir}/checkpoints")
    checkpoint = None if path is None else load_checkpoint(path)
    if checkpoint is not None:
        cfg = as_trained(cfg, checkpoint)
    check(cfg)
    parts = build(cfg, encoder_weights=checkpoint is None)
    if path is not None and checkpoint is not None:
        load_state(parts.module, checkpoint, path)
        target = _kept(checkpoint, "config", "criterion", "distance", "_target_")
        _check_threshold(parts.module, target and str(target).rpartition(".")[2])
    elif cfg.module.encoder_weights is not None:
        parts.module.preprocessing, distance, parts.module.threshold = read_usage(cfg.module.encoder_weights)
        _check_threshold(parts.module, distance)
    options = _kept(checkpoint, "config", "datamodule")
    options = options if isinstance(options, dict) else {}
    read_as_trained(cfg, parts.datamodule, parts.module.preprocessing, options, typed_keys())
    data = _kept(checkpoint, type(parts.datamodule).__qualname__, "fingerprint")  # where Lightning keeps its state
    return Restored(cfg, parts, path or cfg.module.encoder_weights, data)


def _kept(checkpoint: Any, *keys: str) -> Any:
    """Return a value in a checkpoint; None if there is none."""
    for key in keys:
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    return checkpoint


def _check_threshold(module: TripletModule, trained: str | None) -> None:
    """Drop the threshold of a run that was trained with another distance, and say so."""
    distance = type(module.criterion.distance).__name__
    if module.threshold is not None and trained not in {None, distance}:
        rank_zero_warn(f"threshold: {module.threshold:.4g} was found for {trained}, and is not used with {distance}")
        module.threshold = None


def find_checkpoint(cfg: DictConfig) -> str | None:
    """Path of the checkpoint that ``ckpt_path`` names; for ``last`` the newest whole one in the run's folder, or None.

    Args:
        cfg: The composed configuration.
    """
    if cfg.ckpt_path != "last":
        path: str | None = cfg.ckpt_path
        return path
    newest = newest_checkpoint(Path(cfg.output_dir) / "checkpoints")
    return None if newest is None else str(newest)


def as_trained(cfg: DictConfig, checkpoint: dict[str, Any]) -> DictConfig:
    """Replace what the command line does not say by what the checkpoint was trained with.

    Args:
        cfg: The composed configuration.
        checkpoint: Content of the file.

    Returns:
        A new configuration; the given one if the checkpoint keeps none, or if Hydra did not start this process.

    Raises:
        UserError: If the checkpoint names a ``_target_`` that nobody vouched for.
    """
    kept, typed = checkpoint.get("config"), typed_keys()
    if not isinstance(kept, dict) or typed is None:
        return cfg
    taken = [key for key in KEPT if key in kept and key not in typed]
    _check_kept({key: kept[key] for key in taken})
    values: Any = OmegaConf.to_container(cfg)
    try:
        merged = OmegaConf.create(values | {key: kept[key] for key in taken})
        for key in typed:
            if key.split(".")[0] in taken and "." in key:
                OmegaConf.update(merged, key, OmegaConf.select(cfg, key))
        _link(merged, kept)
    except OmegaConfBaseException as error:
        raise UserError(f"ckpt_path: the configuration in the checkpoint cannot be read ({one_line(error)})") from error
    whole: Any = OmegaConf.to_container(merged)
    for path, _, value in leaves("", {key: whole[key] for key in taken}):
        if "${" in str(value) and value not in _LINKS:
            raise UserError(f"{path}: expected a plain value in the checkpoint, got {value!r}; type {path}=...")
    rename_targets(merged)
    return plain(merged)


def _check_kept(kept: dict[str, Any]) -> None:
    """Check the shape of a configuration from a checkpoint: groups are dicts, the margin is a number."""
    check_size("ckpt_path: the configuration in the checkpoint", kept)
    for key, value in kept.items():
        if not isinstance(value, float | int if key == "margin" else dict):
            expected = "a number" if key == "margin" else "a group with a _target_"
            raise UserError(f"{key}: expected {expected} in the configuration of the checkpoint, got {value!r}")


def _link(merged: DictConfig, kept: dict[str, Any]) -> None:
    """Let the criterion follow the options that it shares, if it did so in training: they may be typed now."""
    for key in ("distance", "miner", "margin"):
        if key in kept and kept[key] == kept.get("criterion", {}).get(key):
            OmegaConf.update(merged, f"criterion.{key}", f"${{{key}}}", merge=False)


def typed_keys() -> list[str] | None:
    """Return the keys and groups that the command line names; None if Hydra did not start this process."""
    if not HydraConfig.initialized():
        return None
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
    return [override.key_or_group for override in OverridesParser.create().parse_overrides(words)]


def load_state(module: TripletModule, checkpoint: dict[str, Any], path: str) -> None:
    """Load a checkpoint's weights, as plain tensors, and its threshold into a module, in evaluation mode.

    Args:
        module: The module to change.
        checkpoint: Content of the file.
        path: The file, for the message.

    Raises:
        UserError: If it belongs to another encoder or distance.
    """
    state = without_compile(checkpoint["state_dict"])
    names = {plain_name(name): name for name in module.state_dict()}
    own = without_compile(module.state_dict())
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    wrong = [name for name in own | state if name not in fitting and not name.startswith(_TRAINING_ONLY)]
    if wrong:
        raise UserError(
            f"ckpt_path: {path} does not fit {type(module.encoder).__name__}, first at {wrong[0]}; "
            f"give the options it was trained with: {_trained_with(Path(path))}"
        )
    state = {names[name]: shard_like(value, own[name]) for name, value in fitting.items()}
    module.load_state_dict(state, strict=False)
    module.threshold = checkpoint.get("threshold")
    if "preprocessing" in checkpoint:
        module.preprocessing = from_json(checkpoint["preprocessing"])
    for_use(module)


def _trained_with(checkpoint: Path) -> str:
    """Overrides of the run that wrote a checkpoint, or where to find them."""
    overrides = checkpoint.parent.parent / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return "see config.yaml of its run"
    return " ".join(str(word) for word in OmegaConf.load(overrides)) or "the defaults"
