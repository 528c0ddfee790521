"""Quoting of folders for Hydra's command line."""

from __future__ import annotations

from pathlib import Path


def quoted(folder: Path) -> str:
    r"""Quote a folder as a value on Hydra's command line.

    Args:
        folder: Any path, with any characters.

    Example:
        >>> print(quoted(Path("it's")))
        'it\'s'
    """
    return "'" + str(folder).replace("'", "\\'") + "'"
