"""Check of a configuration node against the signature of its ``_target_``, before it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
_SEQUENCES = (list, tuple, set, Sequence, Iterable, Collection)
_MAPPINGS = (dict, Mapping)


def check_arguments(path: str, node: Any, later: Sequence[str] | None = None) -> None:
    """Check the keys and plain values of a node, and of every node inside it, against its ``_target_``.

    Args:
        path: Place of the node in the configuration.
        node: Plain content: dicts, lists and scalars.
        later: Arguments that the program adds when it calls a ``_partial_`` node; None if that is unknown.

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
        _check_call(path, node, later)
    for key, value in node.items():
        check_arguments(f"{path}.{key}", value)


def _check_call(path: str, node: Mapping[str, Any], later: Sequence[str] | None) -> None:
    _check_own(path, node)
    check_target(f"{path}._target_", node["_target_"])
    target = locate(f"{path}._target_", node["_target_"])
    check_found(f"{path}._target_", node["_target_"], target)
    name = getattr(target, "__name__", str(target))
    inherited = inspect.isclass(target) and target.__init__ is nn.Module.__init__  # it takes no arguments
    parameters = {} if inherited else inspect.signature(target).parameters
    given = {key: value for key, value in node.items() if key not in _OWN}
    if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in given:
            if key not in parameters:
                raise UserError(f"{path}.{key}: {name} has no such argument; {allowed(key, parameters)}")
    hints = _hints(target)
    for key, value in given.items():
        if key in hints and not _fits(value, hints[key]):
            raise UserError(f"{path}.{key}: {name} expected {_spell(hints[key])}, got {value!r}")
    if later is not None or not node.get("_partial_", False):
        for key, parameter in parameters.items():
            named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
            missing = key not in {*given, *(later or ())} and "_args_" not in node
            if named and parameter.default is parameter.empty and missing:
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
    """Return whether a value from a yaml can be an argument with this annotation."""
    members = _members(hint)
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if not any(_is_plain(member) for member in members):
        return value is not None or not all(isinstance(get_origin(member) or member, type) for member in members)
    return any(_is(value, member) for member in members)


def _is_plain(member: Any) -> bool:
    """Return whether a yaml can hold values of this annotation, unlike those of most classes."""
    kind = get_origin(member) or member
    return member in _PLAIN or kind is Literal or kind in _MAPPINGS or kind in _SEQUENCES


def _is(value: Any, member: Any) -> bool:
    kind = get_origin(member) or member
    if kind is Literal:
        return value in get_args(member)
    if member is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if member in _PLAIN:
        return type(value) is member
    if kind in _SEQUENCES:
        return isinstance(value, list) and _items_fit(value, kind, get_args(member))
    if kind in _MAPPINGS:
        return isinstance(value, Mapping)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _items_fit(values: list[Any], kind: type, hints: tuple[Any, ...]) -> bool:
    """Return whether the items of a list fit the annotation of their sequence."""
    if kind is tuple and hints and hints[-1] is not Ellipsis:
        return len(values) == len(hints) and all(map(_fits, values, hints))
    return not hints or all(_fits(value, hints[0]) for value in values)


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
