"""The one error type that means: the input is wrong, not the program."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: one clear line that names what, where, expected and allowed.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary :class:`ValueError`.
    """
