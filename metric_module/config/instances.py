"""Construction of one object that a node of the configuration describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from metric_module.config.arguments import locate
from metric_module.config.messages import one_line
from metric_module.config.trust import PARTS, check_target, leaves
from metric_module.errors import UserError


def check_kind(path: str, target: Any, kind: Any) -> None:
    """Check that a class is of a kind before anything is built; a function is checked by its result.

    Args:
        path: Place of the node in the configuration.
        target: Its ``_target_``.
        kind: The class, or ``Callable``.

    Raises:
        UserError: If nobody vouched for the name, it cannot be imported, or the class is of another kind.
    """
    check_target(f"{path}._target_", target)
    found = locate(f"{path}._target_", target)
    if kind is not Callable and inspect.isclass(found) and not issubclass(found, kind):
        raise UserError(f"{path}: expected {_spelt(kind)}, got {target}")


def build(path: str, node: Any, kind: Any, given: Mapping[str, Any] | None = None) -> Any:
    """Build what a node describes, with plain lists and dicts for its values.

    Args:
        path: Place of the node in the configuration.
        node: Its plain content, checked by :func:`metric_module.config.arguments.check_arguments`.
        kind: Class of the object, or ``Callable``.
        given: Further arguments by name.

    Raises:
        UserError: If a constructor of this project, torch or Lightning rejects its arguments, or the object is of
            another kind.
    """
    try:
        built = instantiate(node, _convert_="all", **(given or {}))
    except InstantiationException as error:
        cause = _innermost(error)
        explained = _explained(path, node, cause)
        raise explained from (None if explained is cause else cause)
    if not isinstance(built, kind):
        raise UserError(f"{path}: expected {_spelt(kind)}, got a {type(built).__name__} from {node['_target_']}")
    return built


def reason(error: BaseException) -> str:
    """Describe an exception in one line; its kind is named where the text alone says little, as for a KeyError.

    Args:
        error: The exception.
    """
    text = one_line(error)
    if text and (isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException"):
        return text
    return f"a value does not fit ({type(error).__name__}: {text}); debug=true shows where"


def _spelt(kind: Any) -> str:
    """Name a class, or the classes of a union."""
    return " or ".join(f"a {one.__name__}" for one in get_args(kind) or (kind,))


def _innermost(error: BaseException) -> BaseException:
    """Return the exception that a constructor raised; Hydra wraps it once for each level of nesting."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _explained(path: str, node: Any, cause: BaseException) -> BaseException:
    """Explain an exception of a shipped constructor in one line; one of the user's own code is passed on."""
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, ModuleNotFoundError):
        return UserError(f"{path}: a package is missing ({str(cause).splitlines()[0]})")
    shipped = all(PARTS.fullmatch(str(value)) for _, key, value in leaves(path, node) if key == "_target_")
    return UserError(f"{path}: {reason(cause)}") if shipped else cause
