"""Every public name of the project, and the one place of the API reference where each is described."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from docs._ext.yaml_files import own_targets

MODULES = (
    "metric_module",
    "metric_module.distances",
    "metric_module.miners",
    "metric_module.criterion",
    "metric_module.encoders",
    "metric_module.evaluation",
    "metric_module.callbacks",
    "metric_module.preprocessing",
    "metric_module.inference",
    "metric_module.tasks",
    "datamodules",
)
"""Modules whose ``__all__`` is public, in the order of the reference: a name is described in the first that has it."""


class Entry(NamedTuple):
    """A name with a description of its own: its module, its name there, and ``class``, ``function`` or ``data``."""

    module: str
    name: str
    kind: str

    @property
    def dotted(self) -> str:
        """The name with its module."""
        return f"{self.module}.{self.name}"


def entry(module: str, name: str) -> Entry:
    """Look up what a name of a module is."""
    found = getattr(import_module(module), name)
    kind = "class" if inspect.isclass(found) else "function" if inspect.isroutine(found) else "data"
    return Entry(module, name, kind)


def _candidates() -> Iterator[tuple[str, str]]:
    """List the public names by module, then what a yaml builds and no ``__all__`` has."""
    for module in MODULES:
        yield from ((module, name) for name in import_module(module).__all__)
    for target in own_targets():
        module, _, name = target.rpartition(".")
        yield module, name


@cache
def entries() -> dict[str, Entry]:
    """Map every public dotted name to its entry; a name that several modules export has one entry."""
    described: list[tuple[Any, Entry]] = []
    places: dict[str, Entry] = {}
    for module, name in _candidates():
        found = getattr(import_module(module), name)
        same = [known for thing, known in described if thing is found]
        place = same[0] if same else entry(module, name)
        if not same:
            described.append((found, place))
        places[f"{module}.{name}"] = place
    return places


@cache
def short_names() -> dict[str, Entry]:
    """Map every last name that is unique, such as ``Semihard``, to its entry."""
    found: dict[str, set[Entry]] = {}
    for dotted, place in entries().items():
        found.setdefault(dotted.rpartition(".")[2], set()).add(place)
    return {name: next(iter(places)) for name, places in found.items() if len(places) == 1}
