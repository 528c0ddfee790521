"""Options of a resumed run: which ones a resume applies, refuses or keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from metric_module.config.plain import references
from metric_module.config.renamed import RENAMED
from metric_module.errors import UserError
from metric_module.storage.checkpoints import map_checkpoint
from metric_module.storage.run_folder import CONFIG

APPLIED, REFUSED, KEPT = "applied", "refused", "kept"

ON_RESUME = {
    "callbacks": APPLIED,
    "callbacks.ema": REFUSED,
    "callbacks.ema.decay": APPLIED,
    "criterion": APPLIED,
    "datamodule": REFUSED,
    "datamodule.augment": APPLIED,
    "datamodule.cache_dir": APPLIED,
    "datamodule.cache_gb": APPLIED,
    "datamodule.class_turns": APPLIED,
    "datamodule.eval_batch_size": APPLIED,
    "datamodule.fonts": APPLIED,
    "datamodule.num_workers": APPLIED,
    "datamodule.on_bad_sample": APPLIED,
    "datamodule.path": APPLIED,
    "datamodule.preflight": APPLIED,
    "datamodule.root": APPLIED,
    "datamodule.table": APPLIED,
    "distance": REFUSED,
    "encoder": REFUSED,
    "evaluation": APPLIED,
    "logger": APPLIED,
    "margin": APPLIED,
    "memory": REFUSED,
    "memory.warmup_steps": APPLIED,
    "miner": APPLIED,
    "miner._target_": REFUSED,
    "miner.miners": REFUSED,
    "module": APPLIED,
    "module.encoder_weights": KEPT,
    "module.lr_scale": REFUSED,
    "monitor": APPLIED,
    "optimizer": REFUSED,
    "optimizer.betas": APPLIED,
    "optimizer.dampening": APPLIED,
    "optimizer.eps": APPLIED,
    "optimizer.lr": APPLIED,
    "optimizer.momentum": APPLIED,
    "optimizer.nesterov": APPLIED,
    "optimizer.weight_decay": APPLIED,
    "report": APPLIED,
    "scheduler": REFUSED,
    "seed": REFUSED,
    "test": APPLIED,
    "trainer": APPLIED,
    "trainer.accumulate_grad_batches": REFUSED,
    "trainer.limit_train_batches": REFUSED,
    "trainer.overfit_batches": REFUSED,
}
"""What a resume does with a changed option; the longest prefix of its key counts. docs/promises.md shows this table."""

_Path = tuple[str, ...]
_ABSENT = object()
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def resume_options(cfg: DictConfig, path: str) -> list[str]:
    """Compare a configuration with that of the run it resumes, and put back the options that are kept.

    Args:
        cfg: The composed configuration; changed in place where an option is kept.
        path: Checkpoint of the run that is resumed.

    Returns:
        One line for each changed option, for the user.

    Raises:
        UserError: If an option is changed that a resume refuses.
    """
    run = Path(path).parent.parent
    lines = []
    for place, old, new in _changes(cfg, run, _record(run, path)):
        key = ".".join(place)
        action = on_resume(key)
        if action == REFUSED:
            raise UserError(_refusal(run, key, old, new))
        if action == KEPT:
            OmegaConf.update(cfg, key, old if isinstance(old, str | int | float) else None)
            lines.append(f"resume: {key} stays {_spell(old)}; {_spell(new)} is for a new run")
        else:
            lines.append(f"resume: {key}: {_spell(old)} -> {_spell(new)}")
    return lines


def on_resume(key: str) -> str:
    """Look up what a resume does with a changed option.

    Args:
        key: Key of the configuration; its first word is in :data:`ON_RESUME`.

    Example:
        >>> on_resume("optimizer.lr"), on_resume("optimizer.amsgrad")
        ('applied', 'refused')
    """
    return ON_RESUME[max((prefix for prefix in ON_RESUME if f"{key}.".startswith(f"{prefix}.")), key=len)]


def _record(run: Path, path: str) -> Mapping[str, Any]:
    """Read the options that a checkpoint was trained with: its own, and from the run's folder those it lacks.

    The texts in it are compared and printed, and never resolved.
    """
    try:
        found = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    kept = map_checkpoint(path).get("config")
    return {**(found if isinstance(found, dict) else {}), **(kept if isinstance(kept, dict) else {})}


def _changes(cfg: DictConfig, run: Path, record: Mapping[str, Any]) -> Iterator[tuple[_Path, Any, Any]]:
    """Yield place, old and new value of every option that differs; references count where they point to.

    An option that is on one side only counts if the words on the command line differ there. Otherwise it belongs to
    another version of this project. So does a group that the record lacks.
    """
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    groups = {key.split(".")[0] for key in ON_RESUME} & set(record)
    linked = {tuple(key.split(".")) for key in references(cfg)}
    words = _changed_words(run)
    for place in dict.fromkeys([*_leaves_of(raw), *_leaves_of(record)]):
        if not groups.intersection(place[:1]) or any(place[:end] in linked for end in range(1, len(place) + 1)):
            continue
        old, new = _at(record, record, place), _at(plain, plain, place)
        if _ABSENT in (old, new) and not _is_named(".".join(place), words):
            continue
        if old != new and not (isinstance(old, str) and ("${" in old or RENAMED.get(old) == new)):
            yield place, old, new


def _leaves(place: _Path, node: Any) -> Iterator[tuple[_Path, Any]]:
    """Yield place and value of everything that is no dict, or an empty one."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves((*place, str(key)), value)
    else:
        yield place, node


def _leaves_of(node: Any) -> Iterator[_Path]:
    return (place for place, _ in _leaves((), node))


def _at(root: Mapping[str, Any], node: Any, place: _Path) -> Any:
    """Look up a place; a reference on the way, ``${miner}``, leads to where it points."""
    for _ in range(100):  # references may be circular
        found = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
        if found is not None:
            node, place = root, (*found[1].split("."), *place)
        elif not place:
            return node
        elif not isinstance(node, Mapping) or place[0] not in node:
            return _ABSENT
        else:
            node, place = node[place[0]], place[1:]
    return _ABSENT


def _changed_words(run: Path) -> set[str] | None:
    """Keys of the words that only one of both command lines has; None if Hydra did not start this process."""
    if not HydraConfig.initialized():
        return None
    try:
        before = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        before = None
    words = {str(word) for word in before} if isinstance(before, list) else set()
    changed = words ^ set(HydraConfig.get().overrides.task)
    keys = (word.lstrip("+~").partition("=")[0].rpartition("@")[2] for word in changed)
    return {key.replace("/", ".") for key in keys}


def _is_named(key: str, words: set[str] | None) -> bool:
    """Return whether the command line changes a key, alone or with its group or a whole experiment."""
    return words is None or any(word == "experiment" or f"{key}.".startswith(f"{word}.") for word in words)


def _refusal(run: Path, key: str, old: Any, new: Any) -> str:
    group = key.split(".")[0]
    way = f"give {key}={_spell(old)}" if old is not _ABSENT and not key.endswith("_target_") else f"leave out {group}"
    return (
        f"{key}: the run was trained with {_spell(old)}, and resuming it cannot change that to {_spell(new)}; "
        f"{way}, or start a new run from its weights, module.encoder_weights={run / 'encoder.safetensors'}"
    )


def _spell(value: Any) -> str:
    """Write a value as on the command line, shortened."""
    if value is _ABSENT:
        return "nothing"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 60 else f"{text[:57]}..."
