"""The process of one job of a sweep: it ends with the sweep, takes its signals, and holds its folder."""

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

FOLLOWS = "LIGHTNING_TRIPLETS_FOLLOWS"
"""A pipe whose other end the sweep holds: when it closes, the sweep is gone."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEPT = 20_000
_RANK = r"^(?:\[rank\d+\]: *)?"
_REASON = re.compile(_RANK + r"(?:error: (.+)|([\w.]*(?:Error|Exception|Interrupt)(?::.*)?))$", re.MULTILINE)


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        seconds: How long it took.
        reason: Why it failed, in a line; empty if it did not.
        signals: That this process received meanwhile, and passed on.
    """

    code: int
    seconds: float
    reason: str
    signals: list[int]


def run_child(command: Sequence[str], inherit: Sequence[int] = ()) -> Ended:
    """Run a command, and wait for it.

    It is not of this process's terminal group, so that Ctrl-C reaches it once, through this process; and it is told to
    stop when this process is gone, however that came.

    Args:
        command: Program and arguments.
        inherit: File descriptors that it keeps open, as :func:`hold` gives them.

    Returns:
        How it ended.
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
        said: list[str] = []
        copying = threading.Thread(target=_copy, args=(process.stderr, said), daemon=True)
        copying.start()
        with _passing_on(process) as signals:
            code = process.wait()
        copying.join(timeout=2)  # a process that it left behind may keep the stream open
    finally:
        os.close(reader)
        os.close(writer)
    return Ended(code, time.monotonic() - start, reason("".join(said), code), signals)


def follow() -> None:
    """In a job of a sweep: stop, as at SIGTERM, when the sweep is gone."""
    pipe = os.environ.pop(FOLLOWS, None)
    if pipe is not None:
        threading.Thread(target=_wait_for_end, args=(int(pipe),), daemon=True).start()


@contextmanager
def hold(folder: Path) -> Iterator[list[int]]:
    """Keep a folder for this process and those that inherit the lock; wait until others have left it.

    Args:
        folder: Which; it is made.

    Yields:
        What a child must inherit, to hold it as long as it lives.

    Raises:
        UserError: On a system without POSIX file locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError(
            "-m: sweeps need a POSIX system (Linux, macOS, or WSL on Windows); run the jobs one by one, without -m"
        ) from None

    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the process that is still at work in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield [lock]
    finally:
        os.close(lock)


def reason(said: str, code: int) -> str:
    r"""The line that says why a process failed: its last error, of several ranks the first, else its last line.

    Args:
        said: The end of what it wrote to its standard error.
        code: Its exit code.

    Example:
        >>> reason("Traceback: ...\nValueError: too small\nbye", 1)
        'ValueError: too small'
        >>> reason("", -9)
        'killed by SIGKILL'
    """
    if not code:
        return ""
    found: list[str] = [one or other for one, other in _REASON.findall(said)]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    killed = [f"killed by {signal.Signals(-code).name}"] if code < 0 else []
    cause = 0 if "[rank" in said else -1  # one rank fails, and the others because it is gone
    if found:
        return found[cause][:300]
    return (killed or lines[-1:] or [f"exit code {code}"])[0][:300]


def _copy(stream: IO[bytes], said: list[str]) -> None:
    """Pass on what is written, as it is written, and keep the end of it."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    while chunk := os.read(stream.fileno(), 65536):
        text = decode(chunk)
        sys.stderr.write(text)
        sys.stderr.flush()
        said[:] = ["".join([*said, text])[-_KEPT:]]
    stream.close()


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Hand the signals that this process receives to another, and remember them."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
