"""Checks of a configuration before anything is imported or built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metric_module.config import conf_folder
from metric_module.config.messages import INNER, allowed
from metric_module.errors import UserError

_LARGEST_SEED = 2**32 - 1  # NumPy's
_TEXT_ENCODER = "metric_module.encoders.TextEncoder"  # always pretrained

_OF_TASKS = ("query", "gallery", "port")  # keys that few tasks read

_checked: list[DictConfig] = []


@contextmanager
def checked(cfg: DictConfig) -> Iterator[None]:
    """Check a configuration before the task is imported; the task inside does not check the same object again.

    Args:
        cfg: The composed configuration.

    Raises:
        UserError: As :func:`check`.
    """
    check(cfg)
    _checked.append(cfg)
    try:
        yield
    finally:
        _checked.pop()


def check(cfg: DictConfig) -> None:
    """Check everything about a configuration that needs no import and no data.

    Args:
        cfg: The composed configuration.

    Raises:
        UserError: If a value is out of range or missing, contradicts another, or is one that nothing reads.
    """
    if any(cfg is done for done in _checked):
        return
    check_keys(cfg)
    _check_task(cfg)
    _check_missing(cfg)
    _check_margin(cfg)
    if not 0 <= cfg.seed <= _LARGEST_SEED:
        raise UserError(f"seed: expected an integer from 0 to {_LARGEST_SEED}, got {cfg.seed}")
    _check_training(cfg)
    _check_checkpoint(cfg)


def check_keys(cfg: Mapping[Any, Any]) -> None:
    """Check that the schema has every key of a configuration.

    Args:
        cfg: The configuration, as a node or as plain values.

    Raises:
        UserError: If there is an unknown key.
    """
    from metric_module.config.schema import Config

    known = list(Config.__dataclass_fields__)
    for key in cfg:
        if key not in known:
            raise UserError(f"unknown key {key!r}: {allowed(str(key), known)}")


def _check_task(cfg: DictConfig) -> None:
    """Reject keys that the yaml of a task of this project does not list."""
    if not isinstance(cfg.task.get("_target_"), str):
        raise UserError("task._target_: expected the function of a task, got none; give task=train")
    home, _, name = cfg.task._target_.rpartition(".")
    path = conf_folder() / "task" / f"{name}.yaml"
    if home != "metric_module.tasks" or not path.is_file():
        return
    known: Any = OmegaConf.load(path)
    for unread in _OF_TASKS:
        if cfg.get(unread) is not None and unread not in known.get("reads", []):
            raise UserError(f"{unread}: task={name} does not read it; task=search and task=serve do")
    for key in cfg.task:
        if key not in known:
            options = [str(name) for name in known if name not in INNER]
            raise UserError(f"unknown key {key!r} in task: {allowed(str(key), options)}; this is task={name}")
    for key, default in known.items():
        value = cfg.task.get(key)
        off = value is None and key in cfg.task and isinstance(default, int)  # null: no limit
        if key not in INNER and default is not None and not off and not _is_alike(value, default):
            raise UserError(f"task.{key!s}: expected a value such as {default}, got {value}")


def _is_alike(value: Any, default: Any) -> bool:
    """Return whether a value is of the kind of a default: a list of its kind of items, a number, or of its type."""
    if isinstance(default, ListConfig):
        return isinstance(value, ListConfig) and all(_is_alike(item, default[0]) for item in value)
    if isinstance(default, int | float) and not isinstance(default, bool):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(default))


def _check_missing(cfg: DictConfig) -> None:
    for key in sorted(OmegaConf.missing_keys(cfg), key=lambda key: (key.count("."), key)):
        example = "my_encoders.Tiny" if key == "encoder._target_" else "..."
        raise UserError(f"{key}: expected a value, got none; give {key}={example}")
    if cfg.output_dir is None:
        raise UserError("output_dir: expected a folder, got none; hydra.run.dir=<folder> sets it")


def _check_margin(cfg: DictConfig) -> None:
    """Check that there is one margin: above 0 for the hinge loss, 0 or more for the soft loss."""
    margin = cfg.margin
    soft = cfg.criterion.get("loss") == "soft"
    if not math.isfinite(margin) or margin < 0 or (margin == 0 and not soft):
        bound = ">= 0 for the soft loss" if soft else "> 0 for the hinge loss"
        raise UserError(f"margin: expected a finite number {bound}, got {margin}")
    own: Any = cfg.criterion.get("margin", margin)
    if own != margin:
        raise UserError(f"margin={margin} and criterion.margin={own} differ: give it once, as margin={own}")


def _check_training(cfg: DictConfig) -> None:
    """Check the sizes of chunks and memory."""
    chunk = cfg.module.encode_chunk_size
    if chunk is not None and chunk < 1:
        raise UserError(f"module.encode_chunk_size: expected an integer >= 1 or null, got {chunk}")
    for key, value in cfg.memory.items():
        if value < 0:
            raise UserError(f"memory.{key}: expected an integer >= 0, got {value}")
    if cfg.memory.warmup_steps and not cfg.memory.size:
        raise UserError(f"memory.warmup_steps={cfg.memory.warmup_steps} without a memory: give memory.size=8192, say")


def _check_checkpoint(cfg: DictConfig) -> None:
    path, weights = cfg.ckpt_path, cfg.module.encoder_weights
    if cfg.task.get("needs_checkpoint") == "any":
        if path is None or not Path(path).exists():
            expected = "the folder of a run, a checkpoint or an exported folder"
            raise UserError(f"ckpt_path: expected {expected}, got {path}; give ckpt_path=<run>")
        return
    if None not in {path, weights} and path != "last":
        raise UserError(f"ckpt_path={path} has an encoder of its own: leave out module.encoder_weights={weights}")
    if path is None and weights is None and cfg.task.get("needs_checkpoint", False) and not has_weights(cfg.encoder):
        raise UserError("ckpt_path: expected a checkpoint, got none; give ckpt_path=<run>/checkpoints/best.ckpt")
    if path not in {None, "last"}:
        check_file("ckpt_path", path, ("checkpoints/best.ckpt", "best.ckpt"))
        if path.endswith(".safetensors"):
            raise UserError(f"ckpt_path: expected a checkpoint, got weights alone; give module.encoder_weights={path}")
    if weights is not None and path is None:
        check_file("module.encoder_weights", weights, ("encoder.safetensors",))


def has_weights(node: Any) -> bool:
    """Return whether an encoder, or one inside it, is built with pretrained weights.

    Args:
        node: Configuration of the encoder.
    """
    if not isinstance(node, Mapping):
        return False
    pretrained = node.get("pretrained") is True or isinstance(node.get("weights"), str)
    return pretrained or node.get("_target_") == _TEXT_ENCODER or any(has_weights(node[key]) for key in node)


def check_file(key: str, path: str, inside: Sequence[str]) -> None:
    """Check that a path is a file; for a folder, suggest the file in it.

    Args:
        key: The key that names it, for the message.
        path: The path.
        inside: Names to suggest if it is a folder that has them.

    Raises:
        UserError: If there is no such file.
    """
    if Path(path).is_dir():
        found = [str(Path(path, name)) for name in inside if Path(path, name).is_file()]
        hint = f"; give {key}={found[0]}" if found else ""
        raise UserError(f"{key}: expected a file, got the folder {path}{hint}")
    if not Path(path).is_file():
        raise UserError(f"{key}: no such file: {path}")
