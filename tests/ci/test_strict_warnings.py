"""Deprecation warnings pass in the README's test command and fail in ``.ci/run``; all other warnings fail in both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WARNINGS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning", "RuntimeWarning")
NAMED = "`isinstance(treespec, LeafSpec)` is deprecated, and so on"  # one of the exceptions in pyproject.toml
TESTS = f"""
import builtins
import warnings

import pytest


@pytest.mark.parametrize("category", {WARNINGS})
def test_warns(category):
    warnings.warn("something", getattr(builtins, category))


def test_named_exception():
    warnings.warn("{NAMED}", FutureWarning)


@pytest.mark.slow
def test_slow():
    raise RuntimeError("selected by default")


@pytest.mark.browser
def test_browser():
    raise RuntimeError("selected by default")


@pytest.mark.integration
def test_integration():
    raise RuntimeError("selected by default")
"""


def failed(folder: Path, *options: str) -> tuple[set[str], set[str]]:
    """Run the tests above under the settings of pyproject.toml; return the categories that fail, and other failures."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_warnings.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_ADDOPTS"] = " ".join(options)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_warnings.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    names = set(re.findall(r"^FAILED test_warnings\.py::(\S+)", done.stdout, re.MULTILINE))
    assert f"{len(names)} failed, {6 - len(names)} passed" in done.stdout, done.stdout + done.stderr
    return {name for name in WARNINGS if f"test_warns[{name}]" in names}, {n for n in names if "test_warns" not in n}


def test_deprecations_pass_in_the_readme_command(tmp_path: Path) -> None:
    assert failed(tmp_path) == ({"UserWarning", "RuntimeWarning"}, set())


def test_deprecations_fail_in_continuous_integration(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci/strict_warnings.py"], capture_output=True, text=True, check=True)
    assert failed(tmp_path, done.stdout, "-n 1") == (set(WARNINGS), set())
    assert "PYTEST_ADDOPTS=$(python3 .ci/strict_warnings.py)\nexport" in (ROOT / ".ci/run").read_text()
