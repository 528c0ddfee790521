"""The reading order: the lists of links in ``docs/index.md`` are the menu of the site, and GitHub shows them too."""

from __future__ import annotations

import os
import re
from pathlib import Path

from docs._ext.repository_files import DOCS, REFERENCE, ROOT, SHOWN

ENTRY = re.compile(r"^- \[(.+)\]\((\S+)\)\n", re.MULTILINE)
GENERATED = {"Reference": ("reference/groups/index", "reference/api/index")}
"""Pages made by the build that follow the list of a section."""


def docname(link: str) -> str | None:
    """The page of the site to which a link of ``docs/index.md`` leads, or None if there is none yet."""
    target = Path(os.path.normpath(DOCS / link))
    file = str(target.relative_to(ROOT))
    shown = REFERENCE / SHOWN[file] if file in SHOWN else target
    return str(shown.relative_to(DOCS).with_suffix("")) if target.is_file() else None


def with_menu(text: str) -> str:
    """Drop the links to pages that do not exist, and add a hidden table of contents to each section."""
    text = ENTRY.sub(lambda entry: entry[0] if docname(entry[2]) else "", text)
    start, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return "".join([start, *(section + menu(section) for section in sections)])


def menu(section: str) -> str:
    """The hidden table of contents of a section."""
    caption = section.partition("\n")[0].removeprefix("## ")
    entries = [f"{title} <{docname(link)}>" for title, link in ENTRY.findall(section)]
    pages = "\n".join([*entries, *GENERATED.get(caption, ())])
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n\n" if pages else ""
