"""The error type for wrong input, as opposed to a bug."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the user's input: one line with the name, the expected and the given value.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary :class:`ValueError`.
    """
