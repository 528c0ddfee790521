"""constraints.txt holds plain versions that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "constraints.txt").read_text().splitlines()


def test_each_line_is_a_published_version() -> None:
    """No path, no editable install, no local suffix, and nothing that belongs to one kind of GPU."""
    assert LINES[0].startswith("# ") and len(LINES) > 100
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line) for line in LINES[1:])
    assert not [line for line in LINES if line.startswith(("nvidia-", "cuda-", "triton"))]


def test_the_versions_are_those_that_the_project_allows() -> None:
    pins = dict(line.split("==") for line in LINES[1:])
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = table["project"]["optional-dependencies"]
    installed = [*table["build-system"]["requires"], *table["project"]["dependencies"], *extras["test"]]
    for line in [*installed, *(line for extra in extras.values() for line in extra)]:
        needed = Requirement(line)
        if needed.name != "lightning-triplets" and (line in installed or needed.name in pins):
            assert needed.specifier.contains(pins[needed.name], prereleases=True), line
