"""Pages of the API reference: one for each module with public names, in reStructuredText for autodoc."""

from __future__ import annotations

from docs._ext.public_names import MODULES, Entry, entries

OTHERS = "other"
"""Page of what a yaml file builds and no module exports."""


def page_of(entry: Entry) -> str:
    """The page, without suffix, that describes a name."""
    return entry.module if entry.module in MODULES else OTHERS


def heading(text: str, line: str = "=") -> list[str]:
    """A title in reStructuredText."""
    return [text, line * len(text), ""]


def description(entry: Entry) -> list[str]:
    """The directive that describes one name."""
    lines = [f".. auto{entry.kind}:: {entry.dotted}"]
    return [*lines, *(["   :members:", "   :show-inheritance:"] if entry.kind == "class" else []), ""]


def module_page(module: str) -> str:
    """The page of one module: its docstring, the names that it exports, and their descriptions."""
    names = {name.rpartition(".")[2]: entry for name, entry in entries().items() if name.rpartition(".")[0] == module}
    lines = [*heading(module), f".. automodule:: {module}", "   :no-members:", ""]
    elsewhere = [f":py:obj:`{entry.dotted}`" for entry in names.values() if entry.module != module]
    if elsewhere:
        lines += [f"Described elsewhere: {', '.join(elsewhere)}.", ""]
    for name, entry in names.items():
        if entry.module == module:
            lines += [*heading(name, "-"), *description(entry)]
    return "\n".join(lines)


def others_page() -> str:
    """The page of what only the yaml files name."""
    lines = [*heading("Built by yaml files"), "What a yaml file builds and no module above exports.", ""]
    for entry in dict.fromkeys(entries().values()):
        if page_of(entry) == OTHERS:
            lines += [*heading(entry.dotted, "-"), *description(entry)]
    return "\n".join(lines)


def index_page() -> str:
    """The page that lists the modules."""
    names = [f"   {name}" for name in (*MODULES, OTHERS)]
    intro = (
        "Every public name, from its docstring. Shapes are in capitals: B = batch, M = references, D = embedding size."
    )
    return "\n".join([*heading("API reference"), intro, "", ".. toctree::", "   :maxdepth: 2", "", *names, ""])


def pages() -> dict[str, str]:
    """All pages by their names below ``reference/``."""
    made = {f"api/{module}.rst": module_page(module) for module in MODULES}
    return {**made, f"api/{OTHERS}.rst": others_page(), "api/index.rst": index_page()}
