"""Checks of settings, each with one message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metric_module.errors import UserError


def check_at_least(setting: str, value: float, least: int) -> None:
    """Accept a number from a minimum on.

    Args:
        setting: Full name of the setting, for the message.
        value: Its value.
        least: The minimum.

    Raises:
        UserError: The value is smaller.
    """
    if value < least:
        raise UserError(f"{setting}: expected an integer >= {least}, got {value}")


def check_choice(setting: str, value: object, allowed: Sequence[object]) -> None:
    """Accept one of several values.

    Args:
        setting: Full name of the setting, for the message.
        value: Its value.
        allowed: The values to accept.

    Raises:
        UserError: The value is another one.
    """
    if value not in allowed:
        raise UserError(f"{setting}: expected {' or '.join(map(str, allowed))}, got {value!r}")


def check_given(setting: str, path: str | None) -> None:
    """Accept a path of one or more characters: an empty one would mean the current folder.

    Args:
        setting: Full name of the setting, for the message.
        path: The path, or None.

    Raises:
        UserError: The path is empty.
    """
    if path is not None and not str(path).strip():
        raise UserError(f"{setting}: expected a path, got {path!r}")


def check_folder(path: Path, setting: str = "") -> Path:
    """Accept an existing folder, and return it.

    Args:
        path: The folder.
        setting: Full name of the setting that names it, for the message; empty: a folder inside of a data set.

    Raises:
        UserError: The folder does not exist.
    """
    if not path.is_dir():
        raise UserError(f"{setting}: no such folder: {path}" if setting else f"no folder {path}")
    return path
