"""What the encoders of pretrained models share: where their files are, and which parts never change."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from metric_module.errors import UserError


def find_path(option: str, name: str) -> Path:
    """A path, or what ``package:name/path`` names inside an installed package, which is not imported.

    Args:
        option: Whose value it is, for the message.
        name: The path; there may be nothing there.

    Raises:
        UserError: If the package is not installed.
    """
    if not name.startswith("package:"):
        return Path(name)
    package, _, inside = name.removeprefix("package:").partition("/")
    found = None if "." in package else importlib.util.find_spec(package)  # a dot would import what is before it
    if found is None or not found.submodule_search_locations:
        hint = package.replace("_", "-")
        raise UserError(f"{option}: package {package!r} is not installed; pip install {hint}")
    return Path(found.submodule_search_locations[0]) / inside


def freeze_parts(backbone: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a backbone, weights and statistics alike; whoever switches to training puts them back.

    Args:
        backbone: The model.
        names: Of the parts, for example ``["embeddings", "encoder.layer.0"]``.

    Returns:
        The parts, in evaluation mode.

    Raises:
        UserError: If the backbone has no part of a name.
    """
    known: dict[str, nn.Module] = dict(backbone.named_modules())
    parts = []
    for name in names:
        if name not in known or not name:
            top = ", ".join(child for child, _ in backbone.named_children())
            raise UserError(f"encoder.frozen: the backbone has no part {name!r}; at the top it has {top}")
        parts.append(known[name].requires_grad_(False).eval())
    return parts
