"""Memory of large batches, in fresh processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import memory
from benchmarks.memory import CASES, Measured, Size, fresh, main, measure

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")


def test_the_table_names_the_median_and_the_worst(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = iter([Measured(30, 1), Measured(10, 2), Measured(20, 3)])
    monkeypatch.setattr(memory, "fresh", lambda case, size: next(found))
    monkeypatch.setattr(sys, "argv", ["memory", "--cases", "soft", "--processes", "3", "--batch", "64"])
    main()
    assert "| soft | 20 | 30 | 2.0 |" in capsys.readouterr().out


@LINUX
@pytest.mark.parametrize("case", [name for name in CASES if name != "training"])
def test_every_case_runs(case: str) -> None:
    size = Size(batch=128, dimension=8, anchors=64, threads=torch.get_num_threads())
    assert 0 <= measure(case, size).megabytes < 100


@pytest.mark.slow
@LINUX
def test_memory_does_not_grow_with_the_number_of_blocks() -> None:
    """64 blocks of 8 MB: with a few small tensors kept from each, the heap grew to more than 500 MB."""
    assert max(fresh("census", Size(dimension=16, anchors=4096)).megabytes for _ in range(3)) < 150
