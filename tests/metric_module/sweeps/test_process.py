"""The process of a job: its errors are kept, signals reach it, and it does not outlive the sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metric_module.sweeps.process import hold, reason, run_child

ROOT = Path(__file__).resolve().parents[3]


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def wait_for(path: Path) -> None:
    for _ in range(400):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_standard_error_is_copied_and_the_last_error_kept(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run_child(python("import sys; print('grün', file=sys.stderr); raise ValueError('too small')"))
    assert (ended.code, ended.reason, ended.signals) == (1, "ValueError: too small", [])
    assert 0 < ended.seconds < 30
    output = capsys.readouterr().err
    assert output.startswith("grün\n") and output.endswith("ValueError: too small\n")
    assert run_child(python("import sys; print('ValueError: no', file=sys.stderr)")).reason == ""


def test_reasons() -> None:
    assert reason("a\nerror: margin: expected one\nb\n", 2) == "margin: expected one"
    assert reason("torch.OutOfMemoryError: all gone\nbye\n", 1) == "torch.OutOfMemoryError: all gone"
    assert (
        reason("[rank1]:   at x\n[rank1]: ValueError: a\n[rank0]: RuntimeError: closed by peer\n", 1) == "ValueError: a"
    )
    assert reason("KeyError: a\n\nDuring that:\nValueError: b\nError executing job\n", 1) == "ValueError: b"
    assert reason("bye\n\n", 1) == "bye"
    assert reason("bye\n", -11) == "killed by SIGSEGV"
    assert reason("", 3) == "exit code 3"
    assert len(reason("error: " + "x" * 1000, 1)) == 300


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_child_once_and_it_may_finish(tmp_path: Path, number: signal.Signals) -> None:
    """The child has its own session, and the previous signal handlers are restored."""
    text = (
        "import os, pathlib, signal, sys, time\n"
        "got = []\n"
        f"signal.signal({int(number)}, lambda *_: got.append(1))\n"
        "assert os.getsid(0) == os.getpid()\n"
        "pathlib.Path('ready').touch()\n"
        "for _ in range(1000):\n    got or time.sleep(0.01)\n"
        "time.sleep(0.2); sys.exit(40 + len(got))\n"
    )
    before = signal.getsignal(number)

    def send() -> None:
        wait_for(tmp_path / "ready")
        os.kill(os.getpid(), number)

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        sender = threading.Thread(target=send)
        sender.start()
        ended = run_child(python(text))
        sender.join()
    finally:
        os.chdir(here)
    assert (ended.code, ended.signals) == (41, [number])
    assert signal.getsignal(number) is before


def test_the_child_of_a_killed_sweep_stops_and_locks_its_folder_until_then(tmp_path: Path) -> None:
    job = (
        "import pathlib, signal, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from metric_module.sweeps.process import follow\n"
        "def stop(*_):\n"
        "    time.sleep(0.5); pathlib.Path('stopped').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "follow()\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(20)\n"
    )
    parent = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from metric_module.sweeps.process import hold, run_child\n"
        "with hold(Path('.')) as held:\n"
        f"    run_child([sys.executable, '-c', {job!r}], held)\n"
    )
    with subprocess.Popen(python(parent), cwd=tmp_path) as process:
        wait_for(tmp_path / "ready")
        process.kill()
    with hold(tmp_path):
        assert (tmp_path / "stopped").exists(), "the lock was free before the orphan had stopped"


def test_a_folder_is_locked_for_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with hold(tmp_path / "job"):
            order.append("second")

    with hold(tmp_path / "job"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert f"waiting for another process that still works in {tmp_path}/job" in capsys.readouterr().err
