"""Print constraints.txt: the installed version of all that pyproject.toml and its extras need, directly or not.

Left out: the project itself, packages that are not installed here, and the CUDA libraries, which torch pins.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton")


def declared() -> list[Requirement]:
    """List what pyproject.toml asks for: to build, to run, and in every extra."""
    table = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = table["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    found = [Requirement(line) for line in [*table["build-system"]["requires"], *project["dependencies"], *extras]]
    return [one for one in found if one.name != project["name"]]


def required_by(package: Requirement) -> list[Requirement]:
    """List what an installed package and its chosen extras ask for on this machine."""
    found = [Requirement(line) for line in distribution(package.name).requires or []]
    chosen = package.extras or {""}
    return [one for one in found if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in chosen)]


def versions() -> dict[str, str]:
    """Map each needed package to its installed version, without a local suffix such as ``+cpu``."""
    waiting, seen, found = declared(), set[tuple[str, frozenset[str]]](), dict[str, str]()
    while waiting:
        package = waiting.pop()
        name = canonicalize_name(package.name)
        if (name, frozenset(package.extras)) in seen or name.startswith(PINNED_BY_TORCH):
            continue
        seen.add((name, frozenset(package.extras)))
        try:
            found[name] = Version(distribution(name).version).public
        except PackageNotFoundError:
            continue
        waiting += required_by(package)
    return dict(sorted(found.items()))


def main() -> None:
    """Print a line for each package, after a header that says how the file is made."""
    python = ".".join(map(str, sys.version_info[:2]))
    print(f"# Versions that .ci/run last passed with, on Python {python}. CONTRIBUTING.md says how to renew this file.")
    for name, version in versions().items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
