"""The Python of the pages for readers of other libraries runs, and prints what its comments say."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_text import write_model

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "get_started.md",
    "triplet_loss.md",
    *(f"coming_from/{page.name}" for page in sorted(DOCS.glob("coming_from/*.md"))),
]
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def program(name: str) -> str:
    """All Python blocks of a page, as one program."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL))


def output(text: str) -> list[str]:
    """Run a program, and return the lines that it prints by itself."""
    printed: list[str] = []
    scope = {"print": lambda *values: printed.append(" ".join(str(value) for value in values))}
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        exec(text, scope)
    return printed


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.integration if "/" in name else []) for name in PAGES]
)
def test_it_prints_what_the_comments_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "sentence_transformers" in name:
        write_model(tmp_path / "model", dropout=0.0)
    text = program(name)
    expected = PRINTED.findall(text)
    assert expected
    assert output(text) == expected
