"""The yaml files of the Hydra groups as they lie in ``conf/``: options, comments and what they build."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from metric_module.config import conf_folder

OWN = ("metric_module.", "datamodules.")


def groups() -> dict[str, list[Path]]:
    """Map each group to its yaml files, in the order of ``config.yaml``; ``hydra`` holds only settings of Hydra."""
    return {name: sorted((conf_folder() / name).glob("*.yaml")) for name in default_options() if name != "hydra"}


@cache
def default_options() -> dict[str, str | None]:
    """Map each group to the option that ``config.yaml`` chooses."""
    defaults = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {name: option for one in defaults if isinstance(one, dict) for name, option in one.items()}


def built_nodes(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """List the nodes with a ``_target_`` in the content of a yaml file, with their places in the configuration."""
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield path, node
    for key, value in node.items():
        yield from built_nodes(value, f"{path}.{key}")


def own_targets() -> list[str]:
    """List the names of this project that the yaml files build."""
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for files in groups().values() for file in files]
    targets = [node["_target_"] for content in contents for _, node in built_nodes(content, "")]
    return sorted({target for target in targets if target.startswith(OWN)})


def leading_comment(text: str) -> str:
    """Join the comment lines at the top of a yaml file, without Hydra's ``@package``."""
    lines = text.splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.lstrip("# ") for line in lines[:end] if "@package" not in line)
