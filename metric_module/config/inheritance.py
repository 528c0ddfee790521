"""Environment of child processes (sweep jobs, DDP processes): the same package, and the words the user typed."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from metric_module.config.program import PROGRAM, typed_command
from metric_module.config.trust import WORDS

CHILD = (sys.executable, "-m", "metric_module")
"""Program of a child process."""

_ROOT = str(Path(__file__).resolve().parents[2])


def import_from(folder: Path) -> None:
    """Make the user's modules in a folder importable, after every installed package and this project's.

    A file in the folder must not take the place of an optional package that is imported later.

    Args:
        folder: The current folder.
    """
    sys.path[:] = [path for path in sys.path if path not in {"", str(folder)}] + [str(folder)]
    if any(_has_another(name, sys.path) for name in ("metric_module", "datamodules")):
        sys.path.insert(0, _ROOT)


@contextmanager
def passed_on() -> Iterator[None]:
    """Let child processes run the same package, from the same folder, with the same trusted names.

    Lightning builds the command of a DDP process from ``__main__``: a console script is called by its path, which fails
    on Windows, and a relative path of a script fails in another folder. With the ``__spec__`` of ``python -m
    metric_module``, the command is ``sys.executable -m metric_module.__main__`` however this process was started.
    """
    variables = {
        PROGRAM: os.environ.get(PROGRAM) or typed_command(),
        WORDS: os.environ.get(WORDS) or json.dumps(sys.argv[1:]),
        **_import_path(),
    }
    before = {name: os.environ.get(name) for name in variables}
    script = sys.modules["__main__"]
    spec, script.__spec__ = script.__spec__, find_spec("metric_module.__main__")
    os.environ.update(variables)
    try:
        yield
    finally:
        script.__spec__ = spec
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _import_path() -> dict[str, str]:
    """Return the variables with which ``python -m metric_module`` finds this package, and not the current folder."""
    found = {"PYTHONSAFEPATH": "1"}
    if _ROOT not in {str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")}:
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != _ROOT]
        found["PYTHONPATH"] = os.pathsep.join([_ROOT, *others])
    return found


def _has_another(name: str, folders: Sequence[str]) -> bool:
    """Return whether the first module or package of this name in some folders is not this project's."""
    found = PathFinder.find_spec(name, folders)
    origin = found.origin if found is not None else None
    return origin is None or Path(origin).resolve() != Path(_ROOT, name, "__init__.py")
