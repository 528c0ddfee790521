"""The error type for wrong input, as opposed to a bug, and the wording that messages share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

# Control characters, line separators, marks that reverse the order of text, and bytes that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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


def printable(text: str) -> str:
    r"""Write control characters as escapes, so that a name from a file cannot steer the terminal.

    Args:
        text: A line to print.

    Example:
        >>> print(printable("a\x1b[31mb"))
        a\x1b[31mb
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
