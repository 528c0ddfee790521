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

from metric_module.errors import UserError

WORDS = "LIGHTNING_TRIPLETS_TYPED"
"""Environment variable that gives child processes (sweep jobs, DDP processes) the arguments that the user typed."""

PARTS = re.compile(
    r"(metric_module\.(encoders|distances|miners|callbacks|evaluation)|datamodules(\.published)?)\.[A-Z]\w*"
    r"|metric_module\.loggers\.MetricsCSV"
    r"|metric_module\.(TripletCriterion|training\.(schedules\.warmup_cosine|sharded_strategy\.ShardedStrategy)|sweeps\.lifecycle\.SweepReport)"
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

_TASKS = re.compile(r"metric_module\.tasks\.(train|evaluate|embed|census|search|export|serve)")

_trusted: list[str] = []
_words: list[str] = []  # arguments that the user typed


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
        values: Every single value that was typed, ``key=value``.
    """

    targets: frozenset[str]
    packages: tuple[str, ...]
    values: frozenset[str]


def typed_words() -> tuple[str, ...]:
    """Return the arguments that the user typed, to this process or to its parent."""
    return tuple(_words)


def typed() -> Typed:
    """Return the permissions from the command line of this process or its parent, and from :func:`vouch_for`."""
    found = _parsed(typed_words())
    return found._replace(packages=(*found.packages, *_trusted))


@cache
def _parsed(words: tuple[str, ...]) -> Typed:
    """Parse command-line arguments into permissions; cached, because every checked name needs the result."""
    targets: set[str] = set()
    packages: list[str] = []
    values: set[str] = set()
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:
            continue  # an option, or a word that Hydra will reject
        key, given = override.key_or_group, override.value()
        for value in given.list if isinstance(given, ChoiceSweep) else [given]:
            packages += [str(name) for name in value] if key == "trusted" and isinstance(value, list) else []
            for path, name, leaf in leaves(key, value):
                values.add(f"{path}={leaf}")
                targets |= {str(leaf)} if name == "_target_" else set()
    return Typed(frozenset(targets), tuple(packages), frozenset(values))


def check_names(values: Any) -> None:
    """Check every ``_target_`` of a configuration, ``hydra`` included, before anything is imported for it.

    Args:
        values: Dicts, lists and scalars.

    Raises:
        UserError: If a name is neither in the allow-list, nor typed, nor trusted; if a file sets ``trusted``.
    """
    if not set(values.get("trusted") or ()) <= set(typed().packages):
        raise UserError("trusted: a file cannot vouch for itself; type it on the command line, trusted=[my_package]")
    for path, key, value in leaves("", values):
        if key == "_target_" and value != "???":
            check_target(path, value)


def check_target(path: str, name: Any) -> None:
    """Check the name of a ``_target_`` before it is imported.

    Args:
        path: Place of the ``_target_`` in the configuration.
        name: Its value.

    Raises:
        UserError: If it was neither typed nor trusted, and is not in the allow-list of this project, Lightning and
            torch.optim; as the task, if it is not a task of this project.
    """
    own = _TASKS if path == "task._target_" else PARTS
    allowed = isinstance(name, str) and (own.fullmatch(name) or _PLUGINS.fullmatch(f"{path} {name}"))
    if not allowed and not _is_vouched(name):
        raise _refusal(path, name)


def check_found(path: str, name: str, found: Callable[..., Any]) -> None:
    """Check an imported object before it is called: a class or function from an allowed package.

    Args:
        path: Place of the ``_target_`` in the configuration.
        name: Its value.
        found: The object that was imported for this name.

    Raises:
        UserError: If it comes from another package, and was neither typed nor trusted.
    """
    check_target(path, name)
    package = str(getattr(found, "__module__", "")).split(".")[0]
    if not _is_vouched(name) and not (package in _HOMES and (inspect.isclass(found) or inspect.isfunction(found))):
        raise _refusal(path, name)


def _is_vouched(name: Any) -> bool:
    """Return whether the user typed this name, or trusts it or a package that contains it."""
    vouched = typed()
    return str(name) in vouched.targets or any(f"{name}.".startswith(f"{package}.") for package in vouched.packages)


def _refusal(path: str, name: Any) -> UserError:
    package = str(name).split(".")[0]
    return UserError(
        f"{path}: {name!r} comes from a file, and is no part of this project; "
        f"if you trust it, add 'trusted=[{package}]' on the command line"
    )


def leaves(path: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, last key and value of every leaf; the value of a ``_target_`` is a leaf even if it has children.

    Args:
        path: Place of the node; empty for a whole configuration.
        node: Dicts, lists and scalars.
    """
    key = path.rpartition(".")[2]
    if isinstance(node, Mapping) and key != "_target_":
        for name, value in node.items():
            yield from leaves(f"{path}.{name}".lstrip("."), value)
    elif isinstance(node, Sequence) and not isinstance(node, str) and key != "_target_":
        for position, value in enumerate(node):
            yield from leaves(f"{path}.{position}", value)
    else:
        yield path, key, node
