"""The error type for wrong input, as opposed to a bug, and suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in the user's input: one line with the name, the expected and the given value.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary :class:`ValueError`.
    """


class NotComputableError(UserError):
    """The samples of a set do not allow a figure; figures that they allow are still computed."""


def did_you_mean(got: str, options: Sequence[str], most: int = 1) -> str:
    """Begin a message with the closest options; empty if none is close.

    Args:
        got: The name that does not exist.
        options: All names.
        most: Largest number of suggestions.

    Example:
        >>> did_you_mean("margni", ["margin", "seed"])
        "did you mean 'margin'? "
    """
    close = get_close_matches(got, options, n=most)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""
