"""Command that started the program, for the hints that it prints."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "lightning-triplets"
"""Name of the console script."""

PROGRAM = "LIGHTNING_TRIPLETS_PROGRAM"
"""Environment variable: the command that the user typed, for child processes and for the yaml of ``--help``."""


def command() -> str:
    """Return the command that starts the program, as the user typed it, without options.

    In a child process this is the command of the process that the user started; from Python it is the console script.

    Returns:
        ``lightning-triplets``, ``python -m metric_module`` or ``python /path/to/run.py``, quoted for a shell.
    """
    return os.environ.get(PROGRAM, SCRIPT)


def typed_command() -> str:
    """Return the command of this process, from the arguments that Python was started with."""
    called = Path(sys.argv[0])
    if called.stem != SCRIPT:
        return shlex.join(sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])])
    found = shutil.which(SCRIPT)
    on_path = found is not None and Path(found).resolve().parent == called.resolve().parent
    return SCRIPT if on_path else shlex.quote(str(called))
