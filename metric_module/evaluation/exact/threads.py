"""Independent work in Python threads, which do not wait for one another as torch's do after every small operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_MOST = 8  # more threads than this wait for the interpreter

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_threads(work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Run independent tasks, without gradients, on as many threads as torch may use.

    Args:
        work: Function of one task. It must be safe to call from several threads.
        tasks: The tasks.

    Returns:
        The results in the order of the tasks.

    Example:
        >>> in_threads(lambda number: 2 * number, [1, 2, 3])
        [2, 4, 6]
    """
    inference = torch.is_inference_mode_enabled()

    def without_gradients(task: Task) -> Result:
        """Set the modes of this thread: they are not inherited, and Lightning evaluates in inference mode."""
        with torch.inference_mode(inference), torch.no_grad():
            return work(task)

    threads = torch.get_num_threads()
    workers = min(threads, _MOST, len(tasks))
    if workers < 2:
        return [without_gradients(task) for task in tasks]
    try:
        # set_num_threads also changes the default of every thread that starts later: hence the finally.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            return list(pool.map(without_gradients, tasks))
    finally:
        torch.set_num_threads(threads)
