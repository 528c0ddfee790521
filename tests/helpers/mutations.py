"""Broken copies of a yaml: every key with a value of another type, null, removed, and one unknown key beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

_VALUES = {"text": "abc", "number": -7, "mapping": {"a": 1}}
_KINDS: dict[str, Any] = {"text": str, "number": (int, float), "mapping": dict}
_PACKAGE = "# @package"

Path = tuple[str | int, ...]


class Mutation(NamedTuple):
    """A broken copy of a yaml.

    Attributes:
        name: Place and kind of the change, such as ``trainer.max_epochs null``.
        text: The whole file.
    """

    name: str
    text: str


def mutations(text: str) -> Iterator[Mutation]:
    """Yield every broken copy of a yaml, each with a single change.

    Args:
        text: The file; a first line with its Hydra package stays in front.
    """
    header = f"{text.splitlines()[0]}\n" if text.startswith(_PACKAGE) else ""
    whole = yaml.safe_load(text)
    for path in _places((), whole):
        value = _at(whole, path)
        for kind, broken in _values(value):
            yield _mutation(header, whole, path, kind, broken)
        yield _mutation(header, whole, path, "removed", ...)
        if isinstance(value, dict):
            yield _mutation(header, whole, (*path, "unknown_key"), "unknown", 1)
    if isinstance(whole, dict):
        yield _mutation(header, whole, ("unknown_key",), "unknown", 1)


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values that replace a value: those of every other type, and null."""
    for kind, broken in _VALUES.items():
        if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
            yield kind, broken
    if value is not None:
        yield "null", None


def _places(path: Path, node: Any) -> Iterator[Path]:
    """Yield the path of every node below the root."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _places((*path, key), value)


def _at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def _mutation(header: str, whole: Any, path: Path, kind: str, value: Any) -> Mutation:
    changed = copy.deepcopy(whole)
    parent = _at(changed, path[:-1])
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return Mutation(f"{'.'.join(str(key) for key in path)} {kind}", header + yaml.safe_dump(changed, sort_keys=False))
