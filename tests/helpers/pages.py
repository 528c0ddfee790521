"""Pages of the docs: the files and the commands that they show."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> tuple[str, dict[str, str], list[str]]:
    """Return the text of a page, the content of its files by their names, and its command lines."""
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n((?:# @package \S+\n)?# (\S+)\n.*?)```", text, re.DOTALL)
    files = {name: block for block, name in blocks}  # whole, as a reader copies them
    return (
        text,
        files,
        [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()],
    )


def modules_of(files: Mapping[str, str]) -> list[str]:
    """Return the names of the modules among some files."""
    return [Path(name).stem for name in files if name.endswith(".py")]


@contextmanager
def written(files: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the files of a page into a folder from which they can be imported afresh."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.syspath_prepend(str(folder))
    for module in modules_of(files):
        sys.modules.pop(module, None)
    yield folder
    for module in modules_of(files):
        sys.modules.pop(module, None)
