"""Pages of the Hydra groups: each option with its yaml file, and the arguments of what it builds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from docs._ext.api_pages import heading
from docs._ext.argument_tables import table
from docs._ext.public_names import entries
from docs._ext.yaml_files import built_nodes, default_options, groups, leading_comment
from metric_module.config import conf_folder
from metric_module.config.arguments import locate


def purposes() -> dict[str, str]:
    """Purpose of each group, as ``--help`` says it."""
    help_text = yaml.safe_load((conf_folder() / "hydra/help/groups.yaml").read_text(encoding="utf-8"))["template"]
    rows = re.findall(r"^([a-z]\w*)  +(\S.*(?:\n {8,}\S.*)*)$", help_text, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in rows}


def label(group: str, option: str) -> str:
    """The target of links to an option."""
    return f"option-{group}-{option}"


def built(place: str, node: Mapping[str, Any]) -> list[str]:
    """Describe the class or function that a node builds, and its arguments."""
    name = node["_target_"]
    if name == "???":
        return [f"``{place}`` builds your own class: ``{place}._target_=my_package.MyClass``.", ""]
    target = locate(place, name)
    link = f":py:obj:`{entries()[name].dotted}`" if name in entries() else f"``{name}``"
    first = (inspect.getdoc(target) or "").partition("\n\n")[0] if name in entries() else ""
    return [f"``{place}`` builds {link}. {' '.join(first.split())}".rstrip(), "", *table(target, node)]


def option_section(group: str, file: Path, chosen: str | None) -> Iterator[str]:
    """The section of one option: its comment, its yaml file, what it builds."""
    text = file.read_text(encoding="utf-8")
    yield from (f".. _{label(group, file.stem)}:", "", *heading(file.stem, "-"))
    comment = leading_comment(text)
    yield from ([comment.replace("*", r"\*"), ""] if comment else [])
    word = f"+{group}" if chosen is None and group != "experiment" else group
    usual = " This is the default." if file.stem == chosen else ""
    yield from (f"``{word}={file.stem}``.{usual}", "", f".. literalinclude:: /../conf/{group}/{file.name}")
    yield from ("   :language: yaml", "")
    seen = set()
    for place, node in built_nodes(yaml.safe_load(text), group):
        if node["_target_"] not in seen:
            yield from built(place, node)
        seen.add(node["_target_"])


def group_page(group: str) -> str:
    """The page of a group."""
    chosen = default_options()[group]
    intro = purposes().get(group, "")
    lines = [*heading(group), f"{intro[:1].upper()}{intro[1:]}." if intro else "", ""]
    for file in groups()[group]:
        lines += option_section(group, file, chosen)
    return "\n".join(lines)


def index_page() -> str:
    """The page that lists the groups, with the configuration that chooses one option of each."""
    intro = [
        "One page for each group of options, made from the yaml files and the signatures of what they build. A key",
        "that the yaml file does not have is given with a plus: ``+encoder.width=16``. ``--cfg job`` shows what a",
        "command composes, and :doc:`/configuration` explains how values are set. This is the root:",
    ]
    whole = [".. literalinclude:: /../conf/config.yaml", "   :language: yaml", "   :caption: conf/config.yaml", ""]
    names = [f"   {group}" for group in groups()]
    return "\n".join(
        [*heading("Groups of options"), *intro, "", *whole, ".. toctree::", "   :maxdepth: 2", "", *names, ""]
    )


def pages() -> dict[str, str]:
    """All pages by their names below ``reference/``."""
    return {**{f"groups/{group}.rst": group_page(group) for group in groups()}, "groups/index.rst": index_page()}
