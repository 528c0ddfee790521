"""Python programs in processes of their own that start at once.

They are forked from the server of :mod:`tests.helpers.processes`, which has imported torch and Lightning; ``python``
would import them again for several seconds.
"""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.processes import CONTEXT, become_independent


class Program:
    """A program that was started with ``python <file> ...``, ``python -m <module> ...`` or ``python -c <code> ...``.

    Args:
        command: All words, the first of which stands for the interpreter.
        folder: The program's current folder.
        environment: All of its environment variables.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.command = list(map(str, command))
        self._streams = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._streams.name, name) for name in ("out", "err"))
        arguments = (self.command, str(folder), dict(environment), str(self._out), str(self._err))
        self.process = CONTEXT.Process(target=_run, args=arguments)
        self.process.start()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the program runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the program."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def finish(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return the exit code and what was written to both streams."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.command, timeout)
        out, err = (path.read_text() if path.exists() else "" for path in (self._out, self._err))
        self._streams.cleanup()
        return subprocess.CompletedProcess(self.command, self.process.exitcode, out, err)


def run_program(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 240, **_: Any
) -> subprocess.CompletedProcess[str]:
    """Run a Python program like ``subprocess.run(..., capture_output=True, text=True)``."""
    return Program(command, cwd, os.environ if env is None else env).finish(timeout)


def _run(command: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become the program, in the forked process."""
    atexit._clear()
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    become_independent(environment)
    os.chdir(folder)
    kind, words = (command[1], command[2:]) if command[1] in {"-m", "-c"} else ("", command[1:])
    sys.orig_argv = command
    sys.argv = [kind or words[0], *words[1:]]
    sys.path.insert(0, str(Path(words[0]).parent) if not kind else folder)
    try:
        if kind == "-c":
            exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
