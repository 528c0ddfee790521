"""Run one sweep job as a child process: forward signals to it, lock its folder, and end it with the sweep."""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from metric_module.errors import UserError
from metric_module.storage.lock import locked

FOLLOWS = "LIGHTNING_TRIPLETS_FOLLOWS"
"""Environment variable with the read end of a pipe; the sweep has the write end, which closes when the sweep dies."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEPT = 20_000
_RANK = r"^(?:\[rank\d+\]: *)?"
_REASON = re.compile(_RANK + r"(?:error: (.+)|([\w.]*(?:Error|Exception|Interrupt)(?::.*)?))$", re.MULTILINE)


class Ended(NamedTuple):
    """The end of a process.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        seconds: Its duration.
        reason: Why it failed, in one line; empty if it did not fail.
        signals: The signals that this process received meanwhile and forwarded.
    """

    code: int
    seconds: float
    reason: str
    signals: list[int]


def run_child(command: Sequence[str], inherit: Sequence[int] = ()) -> Ended:
    """Run a command and wait for its end.

    It runs in its own session, so that Ctrl-C reaches it only once, through this process. A child that calls
    :func:`follow` stops when this process dies, even by SIGKILL.

    Args:
        command: Program and arguments.
        inherit: File descriptors that the child keeps open, from :func:`hold`.

    Returns:
        Exit code, duration, reason of a failure, and forwarded signals.
    """
    start = time.monotonic()
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            pass_fds=[reader, *inherit],
            start_new_session=True,
            env={**os.environ, FOLLOWS: str(reader)},
        )
        assert process.stderr is not None
        output: list[str] = []
        copying = threading.Thread(target=_copy, args=(process.stderr, output), daemon=True)
        copying.start()
        with _forwarding(process) as signals:
            code = process.wait()
        copying.join(timeout=2)  # a grandchild may keep the stream open
    finally:
        os.close(reader)
        os.close(writer)
    return Ended(code, time.monotonic() - start, reason("".join(output), code), signals)


def follow() -> None:
    """Send SIGTERM to this process when the sweep that started it has died; does nothing outside a sweep."""
    pipe = os.environ.pop(FOLLOWS, None)
    if pipe is not None:
        threading.Thread(target=_wait_for_end, args=(int(pipe),), daemon=True).start()


@contextmanager
def hold(folder: Path) -> Iterator[list[int]]:
    """Lock a folder for this process and the children that inherit the lock; wait for another process to release it.

    Args:
        folder: The folder; it is created.

    Yields:
        File descriptors that a child must inherit to keep the lock until it ends.

    Raises:
        UserError: On a system without POSIX file locks.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise UserError(
            "-m: sweeps need a POSIX system (Linux, macOS, or WSL on Windows); run the jobs one by one, without -m"
        ) from None

    with locked(folder, wait=True) as lock:
        yield [lock]


def reason(output: str, code: int) -> str:
    r"""Find the line that says why a process failed: its last error, or else its last line.

    If several processes of one job report errors, the first counts: the others fail because that one is gone.

    Args:
        output: The end of its standard error.
        code: Its exit code.

    Example:
        >>> reason("Traceback: ...\nValueError: too small\nbye", 1)
        'ValueError: too small'
        >>> reason("", -9)
        'killed by SIGKILL'
    """
    if not code:
        return ""
    found: list[str] = [one or other for one, other in _REASON.findall(output)]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    killed = [f"killed by {signal.Signals(-code).name}"] if code < 0 else []
    cause = 0 if "[rank" in output else -1
    if found:
        return found[cause][:300]
    return (killed or lines[-1:] or [f"exit code {code}"])[0][:300]


def _copy(stream: IO[bytes], output: list[str]) -> None:
    """Copy a stream to standard error without delay, and keep its end in ``output``."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    while chunk := os.read(stream.fileno(), 65536):
        text = decode(chunk)
        sys.stderr.write(text)
        sys.stderr.flush()
        output[:] = ["".join([*output, text])[-_KEPT:]]
    stream.close()


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Forward the signals that this process receives to another, and yield the list of them."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        """Record a signal and send it to the child."""
        received.append(number)
        process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()  # only this one may handle signals
    before = {number: signal.signal(number, forward) for number in _SIGNALS} if main else {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
