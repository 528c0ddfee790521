"""Tables of the arguments of a class or function: value in the yaml file, or default; type; meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from docs._ext.yaml_files import OWN

SETTINGS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def arguments_section(docstring: str) -> dict[str, str]:
    """The meaning of each argument in a Google docstring."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", docstring, re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()) for name, text in found}


def meanings(target: Callable[..., Any]) -> dict[str, str]:
    """Meaning of each argument of a class, by its docstring and those of the classes that it inherits from."""
    owners = reversed(inspect.getmro(target)) if inspect.isclass(target) else [target]
    documented = [inspect.cleandoc(vars(owner).get("__doc__") or "") for owner in owners if owner is not object]
    return {name: text for docstring in documented for name, text in arguments_section(docstring).items()}


def as_yaml(value: Any) -> str:
    """A value as a yaml file writes it, in code."""
    plain = value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)
    plain = list(value) if isinstance(value, tuple) else plain
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
    return f"``{text}``"


def as_type(annotation: Any) -> str:
    """An annotation as the signature writes it, in code."""
    if annotation is inspect.Parameter.empty:
        return ""
    return f"``{annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)}``"


def rows(target: Callable[..., Any], node: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """The rows for a node of a yaml file and what it builds: key, value, type, meaning.

    An argument that the yaml file does not have is given with a plus. One without a default that the yaml file does not
    have is left out of a ``_partial_`` node: the program gives it.
    """
    known = meanings(target) if node["_target_"].startswith(OWN) else {}
    parameters = inspect.signature(target).parameters
    for key, value in node.items():
        if key not in SETTINGS and not (isinstance(value, dict) and "_target_" in value):
            kind = as_type(parameters[key].annotation) if key in parameters else ""
            yield f"``{key}``", as_yaml(value), kind, known.get(key, "")
    for key, parameter in parameters.items():
        bound = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} or key in node
        required = parameter.default is parameter.empty
        if bound or (required and node.get("_partial_")):
            continue
        value = "required" if required else as_yaml(parameter.default)
        yield f"``+{key}``", value, as_type(parameter.annotation), known.get(key, "")


def table(target: Callable[..., Any], node: Mapping[str, Any]) -> list[str]:
    """The rows as a table in reStructuredText; nothing where there is no argument."""
    found = list(rows(target, node))
    if not found:
        return []
    columns = 4 if any(meaning for *_, meaning in found) else 3
    lines = [".. list-table::", "   :header-rows: 1", "   :class: arguments", ""]
    for row in [("key", "default", "type", "meaning"), *found]:
        lines += [f"   {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(row[:columns])]
    return [*lines, ""]
