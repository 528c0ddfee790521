"""Checks of overrides and of Hydra's own options, before Hydra composes with them and acts on them.

Hydra calls callbacks, launcher, sweeper and logging, and sets environment variables, before a task starts. A file may
give plain values there, and choose among the logging options that are shipped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf

from metric_module.config.folder import conf_folder
from metric_module.config.secrets import refuse_secrets
from metric_module.config.trust import check_names, leaves, typed, typed_words
from metric_module.errors import UserError

# Parts that Hydra builds, calls or sets itself, before a task starts: they hold plain values. Two paths in the options
# of a launcher are allowed nevertheless: Hydra's schema declares them as text, so that they cannot insert a node.
_ACTS = ("hydra.callbacks", "hydra.launcher", "hydra.sweeper", "hydra.job.env_set")
_LOGGING = ("hydra.job_logging", "hydra.hydra_logging")
_LAUNCH = re.compile(r"hydra\.launcher\.(?!.*_target_)\S+ (\$\{hydra\.(sweep\.dir|job\.name)\}|[^$])*")
_INSIDE_A_SWEEP = re.compile(r"(\$\{hydra[:.]job\.(num|id|override_dirname)\}|[^$])+")
_LEVELS = {"DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET"}


def check_composed(cfg: DictConfig, words: list[str]) -> None:
    """Check a configuration as Hydra has composed it, before Hydra acts on it; nothing is resolved.

    Args:
        cfg: The composed configuration, with ``hydra``.
        words: The overrides that it was composed with.

    Raises:
        UserError: If a file asks for a sweep, changes overrides, or changes what Hydra calls, sets or writes; or as
            :func:`check_names`.
    """
    values: Any = OmegaConf.to_container(cfg)
    own = values["hydra"]
    for name, value in own.items():
        if "${" in str(value) and isinstance(value, str):
            raise UserError(f"hydra.{name}: expected a plain value, got {value!r}")
    if str(own["mode"]).endswith("MULTIRUN") and not _typed_a_sweep():
        raise UserError("hydra.mode: a file cannot ask for a sweep; type -m")
    if sorted([*own["overrides"]["task"], *own["overrides"]["hydra"]]) != sorted(words):
        raise UserError("hydra.overrides: a file cannot set them; type overrides on the command line")
    check_names(values)
    for path, _, value in leaves("hydra", own):
        _check_hydra(path, value)
    _check_subdir(own)


def check_words(words: list[str]) -> None:
    """Check overrides before Hydra composes with them: a search path can make Hydra import a package.

    Args:
        words: Overrides, typed or from the file of a sweep or a run.

    Raises:
        UserError: If an override is an option of the command line, changes Hydra's search path and was not typed, or
            holds a password in an address.
    """
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key.split(".")[0] == "datamodule":
            refuse_secrets(key, value)
        if word.startswith("-"):
            raise UserError(f"{word}: expected an override, key=value; options come from the command line alone")
        if word.lstrip("+~").startswith("hydra.searchpath") and word not in typed_words():
            raise UserError(f"hydra.searchpath: a file cannot change it; type {word!r} on the command line")


def _check_hydra(path: str, value: Any) -> None:
    """Check a value that Hydra uses before a task starts: plain where Hydra acts, and logging as it is shipped."""
    text = str(value)
    if f"{path}={text}" in typed().values:
        return
    if "${" in text and _is_part(path, _ACTS) and not _LAUNCH.fullmatch(f"{path} {text}"):
        raise UserError(f"{path}: expected a plain value, got {value!r}")
    if f"{path}.".startswith("hydra.job.env_set.") and value:
        raise UserError(f"{path}: a file cannot set the environment; type {path}=... on the command line")
    logs = isinstance(value, str) and _is_part(path, _LOGGING)
    if logs and text not in _LEVELS and text not in _shipped_logging():
        raise UserError(f"{path}: a file cannot choose classes, files and formats of logging; type '{path}={text}'")


def _check_subdir(own: dict[str, Any]) -> None:
    """Check that the folder of a job is inside the folder of its sweep."""
    subdir = str(own["sweep"]["subdir"])
    where = re.sub(r"\$\{hydra[:.]job\.override_dirname\}", lambda _: str(own["job"]["override_dirname"]), subdir)
    inside = _INSIDE_A_SWEEP.fullmatch(subdir) or f"hydra.sweep.subdir={subdir}" in typed().values
    if not inside or Path(where).is_absolute() or ".." in Path(where).parts:
        raise UserError(f"hydra.sweep.subdir: expected a folder in the sweep, '${{hydra:job.num}}', got {subdir!r}")


def _is_part(path: str, parts: Sequence[str]) -> bool:
    """Return whether a path is inside one of these parts, or contains one."""
    return any(f"{path}.".startswith(f"{part}.") or f"{part}.".startswith(f"{path}.") for part in parts)


@cache
def _shipped_logging() -> frozenset[str]:
    """Return every text in the logging options of this project, of Hydra, and of its installed plugins."""
    hydra_folder = Path(hydra.__file__).parent
    folders = (conf_folder(), hydra_folder / "conf", *hydra_folder.parent.glob("hydra_plugins/*/conf"))
    files = [path for folder in folders for path in folder.glob("hydra/*_logging/*.yaml")]
    return frozenset(str(value) for path in files for *_, value in leaves("", yaml.safe_load(path.read_text())))


def _typed_a_sweep() -> bool:
    """Return whether the command line asks for a sweep."""
    words, prefixes = typed_words(), ("hydra.mode=", "resume_sweep=")
    return bool({"-m", "--multirun"} & set(words)) or any(word.startswith(prefixes) for word in words)
