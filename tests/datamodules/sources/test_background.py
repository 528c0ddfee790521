"""Tests of the threads that fetch objects."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest

from datamodules.sources.background import THREADS, start

SCRIPT = """
import time
from datamodules.sources.background import start
start(time.sleep, 60)
print('end', flush=True)
"""


def test_results_errors_and_cancelled_calls() -> None:
    assert [start(abs, number).result() for number in (-1, -2)] == [1, 2]
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\) with base 10: 'a'$"):
        start(int, "a").result()
    busy: list[Future[None]] = [start(time.sleep, 0.05) for _ in range(THREADS)]
    late = start(time.sleep, 60)
    assert late.cancel() and all(one.result() is None for one in busy)


def test_a_forked_process_has_threads_of_its_own() -> None:
    start(abs, -1).result()
    child = os.fork()
    if not child:
        os._exit(start(abs, -7).result(timeout=20))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.integration
def test_a_request_without_an_answer_does_not_keep_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stdout.readline() == "end\n"
        assert program.wait(timeout=20) == 0
