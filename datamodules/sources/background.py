"""Threads for requests to object stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

A = TypeVar("A")
T = TypeVar("T")

THREADS = 32
"""Calls at a time in each process."""

_queues: dict[int, SimpleQueue[Any]] = {}
"""Calls that wait for a thread, by process, because no thread survives a fork."""


def start(action: Callable[[A], T], argument: A) -> Future[T]:
    """Call a function in one of this process's threads.

    Those of ``concurrent.futures`` would delay the end of the process, Ctrl-C too, until the last request is answered.

    Args:
        action: The function.
        argument: Its argument.
    """
    if os.getpid() not in _queues:
        queue = _queues.setdefault(os.getpid(), SimpleQueue())
        for _ in range(THREADS):
            Thread(target=_work, args=(queue,), name="objects", daemon=True).start()
    future: Future[T] = Future()
    _queues[os.getpid()].put((future, action, argument))
    return future


def _work(queue: SimpleQueue[Any]) -> None:
    """Make one call after the other."""
    while True:
        future, action, argument = queue.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(action(argument))
            except BaseException as error:
                future.set_exception(error)
