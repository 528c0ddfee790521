"""Preprocessing from its JSON text, which comes with a checkpoint or with weights."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

from metric_module.errors import UserError, did_you_mean
from metric_module.preprocessing.arrays import SeriesInput, VectorInput
from metric_module.preprocessing.base import VERSION, Preprocessing
from metric_module.preprocessing.images import ImageInput
from metric_module.preprocessing.texts import TextInput
from metric_module.preprocessing.towers import TowersInput

_ALL = (ImageInput, TextInput, VectorInput, SeriesInput, TowersInput)
KINDS: dict[str, type[Preprocessing]] = {kind.kind: kind for kind in _ALL}
"""All kinds: the text names one of these, never a class."""


def from_json(text: str) -> Preprocessing:
    """Read the text that :meth:`Preprocessing.to_json` wrote; nothing in it is executed.

    Args:
        text: A JSON object.

    Raises:
        UserError: It is no JSON object, of another version or kind, or a field is unknown, missing or of another type.

    Example:
        >>> from_json('{"version": 1, "kind": "vector", "size": 3}')
        VectorInput(size=3)
    """
    content = json_object("preprocessing", text)
    version, name = content.pop("version", None), content.pop("kind", None)
    if type(version) is not int or version != VERSION:
        raise UserError(f"preprocessing: expected version {VERSION}, got {version!r}; a newer version may read it")
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"preprocessing: expected a kind of {', '.join(KINDS)}, got {name!r}")
    kind = KINDS[name]
    known = {field.name: field.default for field in fields(kind)}
    for key in content:
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise UserError(
                f"preprocessing: unknown key {key!r} of {name}: {did_you_mean(key, [*known])}allowed: {allowed}"
            )
    missing = [key for key, default in known.items() if default is MISSING and key not in content]
    if missing:
        raise UserError(f"preprocessing: {name} has no {', '.join(missing)}")
    if kind is TowersInput and isinstance(content["towers"], dict):
        content["towers"] = {tower: from_json(json.dumps(inside)) for tower, inside in content["towers"].items()}
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})


def json_object(where: str, text: str) -> dict[str, Any]:
    """Read a JSON object from an untrusted source.

    Args:
        where: The source, for the message.
        text: Its content.

    Raises:
        UserError: It is anything else.
    """
    try:
        content = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: expected a JSON object ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a JSON object, got a {type(content).__name__}")
    return content
