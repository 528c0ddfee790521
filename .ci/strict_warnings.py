"""Print the pytest options under which deprecation warnings fail, for ``PYTEST_ADDOPTS``.

pyproject.toml lets them pass, so that a new version of a dependency cannot break the README's test command. Its named
exceptions still hold.
"""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def strict_filters() -> list[str]:
    """Return the warning filters of pyproject.toml without those that let a whole category pass."""
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    return [line for line in settings["filterwarnings"] if not line.startswith("default::")]


def main() -> None:
    """Print ``-o filterwarnings=...``, quoted for a shell."""
    print("-o", shlex.quote("filterwarnings=" + "\n".join(strict_filters())))


if __name__ == "__main__":
    main()
