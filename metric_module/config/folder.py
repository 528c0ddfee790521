"""Where the yaml files of the configuration are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_folder() -> Path:
    """Folder of the yaml files: ``metric_module/conf`` in a wheel, ``conf`` beside the package in a checkout.

    Example:
        >>> (conf_folder() / "config.yaml").is_file()
        True
    """
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"
