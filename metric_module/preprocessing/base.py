"""Base class of all kinds of preprocessing."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from metric_module.errors import UserError

VERSION = 1
"""Version of the JSON text."""


@dataclass(frozen=True)
class Preprocessing(ABC):
    """How one item becomes an encoder input.

    Data modules read their samples with it, and checkpoints keep it, so that a trained encoder gets its inputs in the
    same way wherever it is used. Instances are frozen dataclasses of plain values.

    Attributes:
        kind: Name of the kind in the JSON text.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, item: Any) -> Tensor | str:
        """Read one item.

        Args:
            item: A path, a picture, a text or an array; each kind says which.

        Returns:
            One encoder input, without a batch dimension.

        Raises:
            UserError: The item is of another kind.
        """

    def to_json(self) -> str:
        """Return the version, the kind and the fields as a JSON object, for :func:`from_json`."""
        return json.dumps({"version": VERSION, "kind": self.kind, **asdict(self)})


def check_integer(name: str, value: object, least: int = 1) -> None:
    """Accept an integer from a minimum on; a bool is not one.

    Args:
        name: Name of the field, for the message.
        value: Its value.
        least: The minimum.

    Raises:
        UserError: It is anything else.
    """
    if type(value) is not int or value < least:
        raise UserError(f"preprocessing: {name}: expected an integer >= {least}, got {value!r}")


def check_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Accept one of several values of the same type.

    Args:
        name: Name of the field, for the message.
        value: Its value.
        allowed: The values to accept.

    Raises:
        UserError: It is anything else.
    """
    if not any(type(value) is type(option) and value == option for option in allowed):
        raise UserError(f"preprocessing: {name}: expected {' or '.join(map(repr, allowed))}, got {value!r}")
