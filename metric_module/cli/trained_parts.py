"""Options of the parts of a checkpoint: ``task=evaluate ckpt_path=<file> datamodule.root=<folder>``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import HydraException

from metric_module.config.checks import check_file
from metric_module.config.messages import INNER, allowed
from metric_module.config.schema import KEPT
from metric_module.errors import UserError

TASKS = ("evaluate", "embed", "census")
"""Tasks that take their parts from the checkpoint."""


def with_trained_parts(words: list[str]) -> list[str]:
    """Let ``datamodule.root=...`` set an option of the checkpoint's data module instead of that of the default one.

    Hydra composes the default parts, and refuses keys that those lack. A key of the checkpoint's own part is therefore
    forced with ``++``; the task then sets it in the configuration of the checkpoint. Only names are read from the
    checkpoint here. The same holds for encoder, distance, miner and criterion. Words are not changed if the part is
    typed too, as in ``datamodule=image_folder datamodule.root=...``.

    Args:
        words: Words of the command line, without the program.

    Returns:
        Words for Hydra.

    Raises:
        UserError: If the checkpoint cannot be read, or its part has no such option.
    """
    typed = {position: override for position, word in enumerate(words) if (override := parsed(word)) is not None}
    values = {override.key_or_group: _first(override) for override in typed.values()}
    path = values.get("ckpt_path")
    if values.get("task") not in TASKS or not isinstance(path, str) or path == "last":
        return words
    options = {
        position: override
        for position, override in typed.items()
        if "." in override.key_or_group and override.type in {OverrideType.CHANGE, OverrideType.ADD}
    }
    if not any(_group(override) in KEPT and _group(override) not in values for override in options.values()):
        return words
    kept = _kept(path)
    made = list(words)
    for position, override in options.items():
        group = _group(override)
        if isinstance(kept.get(group), Mapping) and group not in values:
            if override.type == OverrideType.CHANGE:
                _check_key(override.key_or_group, kept)
            made[position] = "++" + words[position].lstrip("+")
    return made


def _kept(path: str) -> Mapping[str, Any]:
    """Return the configuration that a checkpoint keeps; empty if it keeps none."""
    from metric_module.storage.checkpoints import map_checkpoint  # imports torch, which takes its time

    check_file("ckpt_path", path, ("checkpoints/best.ckpt", "best.ckpt"))
    kept = map_checkpoint(path).get("config")
    return kept if isinstance(kept, dict) else {}


def _check_key(key: str, kept: Mapping[str, Any]) -> None:
    """Accept a key that the checkpoint's configuration has."""
    node: Any = kept
    names = key.split(".")
    for place, name in enumerate(names):
        if not isinstance(node, Mapping) or name not in node:
            known = [str(option) for option in node if option not in INNER] if isinstance(node, Mapping) else []
            raise UserError(
                f"unknown key {name!r} in {'.'.join(names[:place])} of the checkpoint: {allowed(name, known)}; an "
                f"argument that its configuration does not list is added with +{key}=..."
            )
        node = node[name]


def parsed(word: str) -> Override | None:
    """Parse an override; None for an option, or a word that Hydra will reject."""
    try:
        return None if word.startswith("-") else OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _first(override: Override) -> Any:
    """Return the value of an override; of a sweep the first one."""
    value = override.value()
    return value.list[0] if isinstance(value, ChoiceSweep) else value


def _group(override: Override) -> str:
    return str(override.key_or_group).split(".", maxsplit=1)[0]
