"""Ctrl-C: one line and exit code 130, also before training handles signals itself."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from metric_module.storage.run_folder import is_first_process

_received: list[int] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Exit with one line after Ctrl-C, whatever it made of the stack; the previous handler is restored.

    Signals can be handled in the main thread only; in another one, or where Ctrl-C is ignored, this does nothing.

    Raises:
        SystemExit: With code 130 after Ctrl-C.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell does this for a command in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except BaseException:
        if interrupted():
            leave()
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed, since Lightning and Hydra turn the exception into others."""
    return bool(_received)


def leave() -> NoReturn:
    """Exit with one line, from one process of the run.

    Raises:
        SystemExit: With code 130.
    """
    if is_first_process():
        print("stopped by SIGINT", file=sys.stderr)
    raise SystemExit(128 + signal.SIGINT) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Remember the signal and unwind the stack."""
    _received.append(number)
    raise KeyboardInterrupt
