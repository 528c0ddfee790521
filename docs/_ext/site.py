"""The Sphinx extension of this site: writes the generated pages, and links names in code to the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from docs._ext import api_pages, group_pages, repository_files
from docs._ext.flowcharts import with_charts
from docs._ext.public_names import Entry, entries, short_names
from docs._ext.reading_order import with_menu
from docs._ext.repository_files import REFERENCE, redirected
from docs._ext.yaml_files import groups

OPTION = re.compile(r"(\w+)=(\w+)")
COMMON_WORDS = {
    "All",
    "Easy",
    "Hard",
    "Random",
    "Match",
    "Side",
    "Source",
    "Split",
    "Texts",
    "train",
    "search",
    "serve",
}
"""Public names that inline code may also use as words of their own."""


def write_pages(app: Sphinx) -> None:
    """Write the generated pages below ``reference/``; a page that did not change is not read again."""
    made = {**api_pages.pages(), **group_pages.pages(), **repository_files.pages()}
    for stale in [path for path in REFERENCE.rglob("*.*") if str(path.relative_to(REFERENCE)) not in made]:
        stale.unlink()
    for name, text in made.items():
        path = REFERENCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def prepare_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Redirect links to files outside ``docs/``, draw the flowcharts, and give the first page its menu."""
    source[0] = with_menu(source[0]) if docname == "index" else source[0]
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".md" and not path.is_relative_to(REFERENCE):
        source[0] = with_charts(redirected(source[0], path.parent, path.parent))


def named(text: str) -> Entry | None:
    """The entry that inline code names: ``metric_module.miners.Semihard``, ``Semihard``, ``Semihard.window()``."""
    name = text.removesuffix("()")
    short = re.sub(r"^([A-Z]\w+)\.\w+$", r"\1", name)
    return entries().get(name) or (None if short in COMMON_WORDS else short_names().get(short))


def cross_reference(text: str, docname: str) -> addnodes.pending_xref | None:
    """The link of inline code to what it names: a public name, or an option of a group."""
    option = OPTION.fullmatch(text)
    if option and any(option[2] == file.stem for file in groups().get(option[1], [])):
        target, domain, kind = group_pages.label(option[1], option[2]), "std", "ref"
    elif (entry := named(text)) is not None:
        target, domain, kind = entry.dotted, "py", "obj"
    else:
        return None
    return addnodes.pending_xref(
        "", refdomain=domain, reftype=kind, reftarget=target, refdoc=docname, refexplicit=True, refwarn=True
    )


def link_names(app: Sphinx, document: nodes.document) -> None:
    """Link the first mention of each public name and option in the inline code of a hand-written page."""
    docname = app.env.docname
    if docname.startswith(("reference/api", "reference/groups")):
        return
    seen: set[str] = set()
    for code in list(document.findall(nodes.literal)):
        inside = (nodes.reference, nodes.title, addnodes.pending_xref)
        parents: list[Any] = [code.parent, getattr(code.parent, "parent", None)]
        link = None if any(isinstance(one, inside) for one in parents) else cross_reference(code.astext(), docname)
        if link is not None and link["reftarget"] not in seen:
            seen.add(link["reftarget"])
            code.replace_self(link)
            link += code


def resolve_names(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name of Python that a docstring or an annotation gives by another path than the public one."""
    target = str(node.get("reftarget", "")).lstrip(".~")
    entry = entries().get(target) or short_names().get(target.rpartition(".")[2])
    if node.get("refdomain") != "py" or entry is None or target == entry.dotted:
        return None
    domain = env.domains.python_domain
    found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", entry.dotted, node, content)
    return found if isinstance(found, nodes.reference) else None


def skip_member(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: the class describes them."""
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions above to the events of Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", prepare_page)
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", resolve_names)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
