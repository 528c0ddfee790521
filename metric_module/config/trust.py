"""Allow-list of ``_target_`` names, so that a configuration from a stranger cannot run arbitrary code.

A configuration can come from anyone: a shared yaml, a run's folder, a checkpoint. Names in it are checked before
anything is imported, and the imported objects before anything is called. Allowed are public names of this project,
Lightning and torch.optim, names that the user typed as a ``_target_``, and packages that the user trusts. Only the
command line, or :func:`vouch_for` from Python, can extend the list; a file cannot.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from metric_module.errors import UserError

WORDS = "LIGHTNING_TRIPLETS_TYPED"
"""Environment variable that gives child processes (sweep jobs, DDP processes) the arguments that the user typed."""

PARTS = re.compile(
    r"(metric_module\.(encoders|distances|miners|callbacks|evaluation)|datamodules(\.published)?)\.[A-Z]\w*"
    r"|metric_module\.loggers\.MetricsCSV"
    r"|metric_module\.(TripletCriterion|training\.schedules\.warmup_cosine|tasks\.\w+|sweeps\.lifecycle\.SweepReport)"
    r"|torch\.optim\.(lr_scheduler\.)?[A-Z]\w*"
    r"|lightning\.pytorch\.(Trainer|(callbacks|loggers|profilers|strategies)\.[A-Z]\w*)"
    r"|lightning\.pytorch\.plugins\.(?!\w*CheckpointIO)[A-Z]\w*"
    r"|hydra\._internal\.core_plugins\.basic_(launcher\.BasicLauncher|sweeper\.BasicSweeper)"
)
"""Names that every configuration may use without permission."""

# Top-level packages that an object behind such a name may come from.
_HOMES = ("metric_module", "datamodules", "torch", "lightning")

# Path and name of an installed launcher or sweeper: Hydra imports all installed plugins in any case.
_PLUGINS = re.compile(r"hydra\.(launcher|sweeper)\._target_ hydra_plugins\.[\w.]+")

_LOGGING = re.compile(r"logging\.(Stream|File|Null)Handler|logging\.Formatter|colorlog\.ColoredFormatter")
_STREAMS = re.compile(r"ext://sys\.std(out|err)")
_MAKES_NODES = re.compile(r"\boc\s*\.\s*(create|decode)\b")
_TASKS = "metric_module.tasks."

# Nodes that Hydra builds, calls or sets itself. An interpolation in them could insert a node that was not checked.
_ACTS = tuple(
    f"hydra.{part}" for part in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "job.env_set")
)
# Interpolations that are allowed there nevertheless: Hydra's own values in the filename of a logging handler, and two
# paths in the options of a launcher, which Hydra's schema declares as text, so that they cannot insert a node.
_PLACE = re.compile(r"(\$\{hydra[.:][\w.]+\}|[^$])*")
_LAUNCH = re.compile(r"(\$\{hydra\.(sweep\.dir|job\.name)\}|[^$])*")


_trusted: list[str] = []
_words: list[str] = []


def remember(words: list[str]) -> None:
    """Store the command-line arguments that the user typed, once and before Hydra can change the environment.

    Args:
        words: Arguments of this process; in a child process, those of the parent are stored instead.
    """
    _words[:] = json.loads(os.environ.get(WORDS, json.dumps(words)))


def vouch_for(*packages: str) -> None:
    """Trust packages, or single names in them, from Python, as ``trusted=[...]`` does on the command line.

    Args:
        packages: Dotted names.

    Example:
        >>> vouch_for("my_package")
        >>> check_target("encoder._target_", "my_package.encoders.Tiny")
    """
    _trusted.extend(packages)


class Typed(NamedTuple):
    """Permissions that the user gave on the command line.

    Attributes:
        targets: Values typed for a ``_target_``.
        packages: Packages, or names in them, typed in ``trusted=[...]``, and those of :func:`vouch_for`.
        environment: Whether ``hydra.job.env_set`` was typed, so that environment variables may be set.
    """

    targets: frozenset[str]
    packages: tuple[str, ...]
    environment: bool


def typed() -> Typed:
    """Return the permissions from the command line of this process or its parent, and from :func:`vouch_for`."""
    found = _parsed(tuple(_words))
    return found._replace(packages=(*found.packages, *_trusted))


@cache
def _parsed(words: tuple[str, ...]) -> Typed:
    """Parse command-line arguments into permissions; cached, because every checked name needs the result."""
    names: list[str] = []
    packages: list[str] = []
    environment = False
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:
            continue  # an option, or a word that Hydra will reject
        key, given = override.key_or_group, override.value()
        environment |= key.startswith("hydra.job.env_set")
        for value in given.list if isinstance(given, ChoiceSweep) else [given]:
            names += targets({key.rpartition(".")[2]: value})
            packages += [str(name) for name in value] if key == "trusted" and isinstance(value, list) else []
    return Typed(frozenset(names), tuple(packages), environment)


def check_configuration(cfg: DictConfig) -> None:
    """Check every name in a composed configuration, ``hydra.*`` included, before anything is imported for it.

    Args:
        cfg: The composed configuration; nothing is resolved.

    Raises:
        UserError: If a node would call or import a name that is neither in the allow-list, nor typed, nor trusted; if
            a file asks for a sweep, sets ``trusted`` or the environment, or creates nodes from text.
    """
    vouched = typed()
    if str(OmegaConf.select(cfg, "hydra.mode")).endswith("MULTIRUN") and not _typed_a_sweep():
        raise UserError("hydra.mode: a file cannot ask for a sweep; type -m")
    if not set(cfg.get("trusted", ())) <= set(vouched.packages):
        raise UserError("trusted: a file cannot vouch for itself; type it on the command line, trusted=[my_package]")
    for path, key, value in _leaves("", OmegaConf.to_container(cfg, resolve=False)):
        if _MAKES_NODES.search(str(value)):
            raise UserError(f"{path}: expected no resolver that makes nodes (oc.create, oc.decode), got {value!r}")
        if key == "_target_" and value != "???":
            _check_name(path, value, vouched)
        elif path.split(".")[0] == "hydra":
            _check_hydra(path, key, value, vouched)


def check_words(words: list[str]) -> None:
    """Check overrides before Hydra composes with them: a search path can make Hydra import a package.

    Args:
        words: Overrides, typed or from the file of a sweep or a run.

    Raises:
        UserError: If an override that the user did not type changes Hydra's search path.
    """
    for word in words:
        if word.lstrip("+~").startswith("hydra.searchpath") and word not in _words:
            raise UserError(f"hydra.searchpath: a file cannot change it; type {word!r} on the command line")


def check_task(name: Any) -> None:
    """Check the name of a task.

    Args:
        name: Value of ``task._target_``.

    Raises:
        UserError: If it is not a task of this project, and was neither typed nor trusted.
    """
    if not str(name).startswith(_TASKS) and not _is_vouched(name, typed()):
        raise _refusal("task._target_", name)
    _check_name("task._target_", name, typed())


def check_target(path: str, name: Any) -> None:
    """Check the name of a ``_target_`` before it is imported.

    Args:
        path: Place of the ``_target_`` in the configuration.
        name: Its value.

    Raises:
        UserError: If it was neither typed nor trusted, and is not in the allow-list of this project, Lightning and
            torch.optim.
    """
    _check_name(path, name, typed())


def check_found(path: str, name: str, found: Callable[..., Any]) -> None:
    """Check an imported object before it is called: a class or function from an allowed package.

    Args:
        path: Place of the ``_target_`` in the configuration.
        name: Its value.
        found: The object that was imported for this name.

    Raises:
        UserError: If it comes from another package, and was neither typed nor trusted.
    """
    _check_name(path, name, typed())
    package = str(getattr(found, "__module__", "")).split(".")[0]
    if not _is_vouched(name, typed()) and not (
        package in _HOMES and (inspect.isclass(found) or inspect.isfunction(found))
    ):
        raise _refusal(path, name)


def _check_name(path: str, name: Any, vouched: Typed) -> None:
    """Raise an error if a name is neither in the allow-list nor vouched for."""
    allowed = isinstance(name, str) and (PARTS.fullmatch(name) or _PLUGINS.fullmatch(f"{path} {name}"))
    if not allowed and not _is_vouched(name, vouched):
        raise _refusal(path, name)


def _is_vouched(name: Any, vouched: Typed) -> bool:
    """Return whether the user typed this name, or trusts it or a package that contains it."""
    return name in vouched.targets or any(f"{name}.".startswith(f"{package}.") for package in vouched.packages)


def _check_hydra(path: str, key: str, value: Any, vouched: Typed) -> None:
    """Check a value that Hydra uses before a task starts: logging classes, interpolations, environment variables."""
    text = str(value)
    factory = path.startswith(("hydra.job_logging.", "hydra.hydra_logging.")) and key in {"()", "class"}
    if factory and not _LOGGING.fullmatch(text):
        raise _refusal(path, value)
    if "ext://" in text and not _STREAMS.fullmatch(text):
        raise _refusal(path, value)
    used_by_hydra = any(f"{path}.".startswith(f"{part}.") or f"{part}.".startswith(f"{path}.") for part in _ACTS)
    allowed = _LAUNCH if path.startswith("hydra.launcher.") and key != "_target_" else None
    allowed = _PLACE if key == "filename" else allowed
    if used_by_hydra and "${" in text and not (allowed and allowed.fullmatch(text)):
        raise UserError(f"{path}: expected a plain value, got {value!r}")
    if f"{path}.".startswith("hydra.job.env_set.") and value and not vouched.environment:
        raise UserError(f"{path}: a file cannot set the environment; type it on the command line")


def _refusal(path: str, name: Any) -> UserError:
    package = str(name).split(".")[0]
    return UserError(
        f"{path}: {name!r} comes from a file, and is no part of this project; "
        f"if you trust it, add 'trusted=[{package}]' on the command line"
    )


def _typed_a_sweep() -> bool:
    """Return whether the command line asks for a sweep."""
    prefixes = ("hydra.mode=", "resume_sweep=")
    return bool({"-m", "--multirun"} & set(_words)) or any(word.startswith(prefixes) for word in _words)


def targets(node: Any) -> Iterator[str]:
    """Yield every value of a ``_target_`` in a node, nested ones included.

    Args:
        node: Plain content: dicts, lists and scalars.
    """
    return (str(value) for _, key, value in _leaves("", node) if key == "_target_")


def _leaves(path: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, last key and value of every leaf; the value of a ``_target_`` is a leaf even if it has children."""
    key = path.rpartition(".")[2]
    if isinstance(node, Mapping) and key != "_target_":
        for name, value in node.items():
            yield from _leaves(f"{path}.{name}".lstrip("."), value)
    elif isinstance(node, Sequence | ListConfig) and not isinstance(node, str) and key != "_target_":
        for position, value in enumerate(node):
            yield from _leaves(f"{path}.{position}", value)
    else:
        yield path, key, node
