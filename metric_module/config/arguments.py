"""Check of a configuration node against the signature of its ``_target_``, before it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from metric_module.config.messages import allowed
from metric_module.config.trust import check_found, check_target
from metric_module.errors import UserError

_OWN = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_CALL: dict[str, tuple[bool | str, ...]] = {
    "_partial_": (False, True),
    "_recursive_": (False, True),
    "_convert_": ("none", "partial", "object", "all"),
}
_PLAIN = (bool, int, float, str, NoneType)


def check_arguments(path: str, node: Any) -> None:
    """Check the keys and plain values of a node, and of every node inside it, against its ``_target_``.

    Args:
        path: Place of the node in the configuration.
        node: Plain content: dicts, lists and scalars.

    Raises:
        UserError: If a target is not trusted or cannot be imported, a key is not one of its arguments, one is
            missing, or a plain value has the wrong type.
    """
    if isinstance(node, list):
        for position, value in enumerate(node):
            check_arguments(f"{path}.{position}", value)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        _check_call(path, node)
    for key, value in node.items():
        check_arguments(f"{path}.{key}", value)


def _check_call(path: str, node: Mapping[str, Any]) -> None:
    check_target(f"{path}._target_", node["_target_"])
    target = locate(f"{path}._target_", node["_target_"])
    check_found(f"{path}._target_", node["_target_"], target)
    name = getattr(target, "__name__", str(target))
    inherited = inspect.isclass(target) and target.__init__ is nn.Module.__init__  # it takes no arguments
    parameters = {} if inherited else inspect.signature(target).parameters
    given = {key: value for key, value in node.items() if key not in _OWN}
    _check_own(path, node)
    if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in given:
            if key not in parameters:
                raise UserError(f"{path}.{key}: {name} has no such argument; {allowed(key, parameters)}")
    hints = _hints(target)
    for key, value in given.items():
        if key in hints and not _fits(value, hints[key]):
            raise UserError(f"{path}.{key}: {name} expected {_spell(hints[key])}, got {value!r}")
    if not node.get("_partial_", False):
        for key, parameter in parameters.items():
            named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
            if named and parameter.default is parameter.empty and key not in given and "_args_" not in node:
                raise UserError(f"{path}.{key}: {name} needs this argument; give +{path}.{key}=...")


def _check_own(path: str, node: Mapping[str, Any]) -> None:
    """Check the keys that say how a target is called, and that its arguments have names."""
    for key, value in node.items():
        if not isinstance(key, str):
            raise UserError(f"{path}.{key}: expected the name of an argument, got {key!r}")
        if key in _CALL and (not isinstance(value, bool | str) or value not in _CALL[key]):
            raise UserError(f"{path}.{key}: expected one of {', '.join(map(str, _CALL[key]))}, got {value!r}")
    if not isinstance(node.get("_args_", []), list):
        raise UserError(f"{path}._args_: expected a list, got {node['_args_']!r}")


def locate(path: str, target: str) -> Callable[..., Any]:
    """Import the class or function that a ``_target_`` names.

    Args:
        path: Place of the ``_target_`` in the configuration.
        target: Dotted name.

    Returns:
        The class or function.

    Raises:
        UserError: If there is no such module or name, or it cannot be called. An error inside the module is passed on.
    """
    words = target.split(".")
    for end in range(len(words) - 1, 0, -1):
        module = _import(".".join(words[:end]))
        if module is not None:
            return _descend(path, target, module, words[end:])
    raise UserError(f"{path}: cannot import {target!r}; expected module.Class, in the current folder or installed")


def _import(name: str) -> ModuleType | None:
    """Import a module; None if there is none. An error of its own imports is passed on."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return None


def _descend(path: str, target: str, module: ModuleType, names: list[str]) -> Callable[..., Any]:
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            public = [word for word in dir(found) if word[0].isupper()]
            raise UserError(f"{path}: {found.__name__!r} has no {name!r}; {allowed(name, public)}")
        found = getattr(found, name)
    if not callable(found):
        raise UserError(f"{path}: expected a class or a function, got {target}, a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Evaluate the annotations of the arguments; empty if that fails."""
    if inspect.isclass(target):
        owner = next(kind for kind in target.__mro__ if "__init__" in vars(kind))
        # Annotations that a dataclass inherits use names of another module.
        target = target if "__dataclass_fields__" in vars(owner) else target.__init__
    try:
        return get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value from a yaml fits an annotation; annotations without a plain type accept any value."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    members = _members(hint)
    if not any(member in _PLAIN or get_origin(member) is Literal for member in members):
        return True
    return any(_is(value, member) for member in members)


def _is(value: Any, member: Any) -> bool:
    if get_origin(member) is Literal:
        return value in get_args(member)
    if member is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if member in _PLAIN:
        return type(value) is member
    kind = get_origin(member) or member
    return isinstance(value, kind) if isinstance(kind, type) else True


def _members(hint: Any) -> list[Any]:
    """List the members of a union, nested ones included, or the annotation itself."""
    if get_origin(hint) not in {Union, UnionType}:
        return [hint]
    return [member for inner in get_args(hint) for member in _members(inner)]


def _spell(hint: Any) -> str:
    words: list[str] = []
    for member in _members(hint):
        literal = get_origin(member) is Literal
        words += [repr(value) for value in get_args(member)] if literal else [getattr(member, "__name__", str(member))]
    return " or ".join(dict.fromkeys(words)).replace("NoneType", "null")
