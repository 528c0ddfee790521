"""Files that the pages link to and Sphinx cannot read: each is a page of the site, since no repository is public."""

from __future__ import annotations

import os
import re
from pathlib import Path

from docs._ext.notebook_pages import page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

COPIES = {
    "README.md": "files/readme.md",
    "README.ko.md": "files/readme_ko.md",
    "CONTRIBUTING.md": "files/contributing.md",
    "CHANGELOG.md": "files/changelog.md",
    "SECURITY.md": "files/security.md",
    "LICENSE": "files/license.md",
    "datamodules/emoji/data/ATTRIBUTION.md": "files/attribution.md",
    "docs/notebooks/tour.ipynb": "files/tour.md",
}
"""Pages below ``reference/`` by the files that they copy."""
SHOWN = {**COPIES, "conf/config.yaml": "groups/index.rst"}
LINK = re.compile(r"(?<=\]\()([^()\s#:]+)(?=[#)])")


def pages() -> dict[str, str]:
    """The copies of the files that exist, with links that lead from where the copies are."""
    made = {}
    for file, name in COPIES.items():
        if (ROOT / file).is_file():
            made[name] = redirected(_markdown(ROOT / file), (ROOT / file).parent, (REFERENCE / name).parent)
    return made


def _markdown(file: Path) -> str:
    if file.suffix == ".ipynb":
        return page(file)
    text = file.read_text(encoding="utf-8")
    return text if file.suffix == ".md" else f"# Licence\n\n```text\n{text}```\n"


def redirected(text: str, source: Path, place: Path) -> str:
    """Rewrite the relative links of a Markdown text.

    Args:
        text: The text.
        source: Folder from which its links lead.
        place: Folder of the page that shows it.
    """

    def rewrite(link: re.Match[str]) -> str:
        """The same target, seen from the page."""
        target = Path(os.path.normpath(source / link[1]))
        name = str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else ""
        return os.path.relpath(REFERENCE / SHOWN[name] if name in SHOWN else target, place)

    return LINK.sub(rewrite, text)
