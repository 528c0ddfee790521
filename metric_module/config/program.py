"""How the program was called: the command that its hints show."""

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
    """Command that starts the program, as the user typed it, without its options.

    In a child process it is the command of the process that the user started; from Python it is the console script.

    Returns:
        ``lightning-triplets``, ``python -m metric_module`` or ``python /path/to/run.py``, quoted for a shell.
    """
    return os.environ.get(PROGRAM, SCRIPT)


def typed_command() -> str:
    """Command of this process, from the words that Python was started with."""
    called = Path(sys.argv[0])
    if called.stem != SCRIPT:
        return shlex.join(sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])])
    found = shutil.which(SCRIPT)
    on_path = found is not None and Path(found).resolve().parent == called.resolve().parent
    return SCRIPT if on_path else shlex.quote(str(called))
