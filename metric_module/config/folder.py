"""Folder of the yaml files, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_folder() -> Path:
    """Find the folder of the yaml files: ``metric_module/conf`` in a wheel, ``conf`` next to the package in a checkout.

    Example:
        >>> (conf_folder() / "config.yaml").is_file()
        True
    """
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"
