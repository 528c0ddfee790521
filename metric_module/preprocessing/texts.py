"""Preprocessing of texts: encoders tokenize them themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from metric_module.errors import UserError
from metric_module.preprocessing.base import Preprocessing


@dataclass(frozen=True)
class TextInput(Preprocessing):
    """A text, passed on unchanged.

    Example:
        >>> TextInput()("eins")
        'eins'
    """

    kind: ClassVar[str] = "text"

    @override
    def __call__(self, item: str) -> str:
        """Return a text.

        Args:
            item: The text.

        Raises:
            UserError: It is not a ``str``.
        """
        if not isinstance(item, str):
            raise UserError(f"expected a text (str), got {type(item).__name__}")
        return item
