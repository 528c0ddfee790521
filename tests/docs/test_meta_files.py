"""The files that hosting services read are valid, and agree with the project."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_links import broken_links, prose

ROOT = Path(__file__).parents[2]
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def read(name: str) -> Any:
    """Content of a yaml file."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_that_of_this_version() -> None:
    citation = read("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["title"].startswith(project["name"])
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert all(author.keys() == {"name"} for author in citation["authors"])


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_the_forms_are_valid(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    assert {part["type"] for part in form["body"]} <= KINDS
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


def test_a_bug_report_asks_for_command_configuration_and_versions() -> None:
    ids = {part["id"] for part in read(".github/ISSUE_TEMPLATE/bug_report.yml")["body"]}
    assert {"command", "config", "versions"} <= ids


def test_the_links_of_the_security_policy() -> None:
    page = ROOT / "SECURITY.md"
    assert broken_links(page, prose(page)) == []
