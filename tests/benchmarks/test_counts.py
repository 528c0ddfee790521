"""The table of operators and host syncs has each bar beside its figure."""

from __future__ import annotations

import sys

import pytest

from benchmarks import counts
from benchmarks.counts import Counted, counted, main, most_operators, most_syncs, row, works
from benchmarks.gpu_counts import Counts
from benchmarks.mining_cases import Work


def test_the_bars_depend_on_miner_and_census() -> None:
    assert [most_operators(work) for work in works(["semihard_nearest"])] == [180, 260, 180, 260]
    assert most_operators(Work("random", 8)) is None
    assert [most_syncs(Work(name, 8)) for name in ("all", "random")] == [2, 3]


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (Counted(Counts(120, 2), Counts(150, 2)), "yes"),
        (Counted(Counts(121, 2), Counts(150, 2)), "no"),
        (Counted(Counts(120, 3), Counts(150, 2)), "no"),
        (Counted(Counts(120, 2), Counts(150, 3)), "no"),
    ],
)
def test_every_bar_counts(found: Counted, met: str) -> None:
    cells = row(Work("hard", 8, per_class=None), found)
    one, whole = found
    numbers = [one.operators, "<= 120", one.syncs, "<= 2", whole.operators, whole.syncs]
    assert cells == ["hard", "uneven", "no", *map(str, numbers), met]


def test_the_module_counts_more_than_the_criterion() -> None:
    found = counted(Work("batch_hard", 32, 128))
    assert 20 < found.criterion.operators < found.module.operators
    assert 0 < found.criterion.syncs <= found.module.syncs


def test_the_command_prints_a_row_for_each_combination(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counts, "BATCH", 32)
    monkeypatch.setattr(sys, "argv", ["counts", "--miners", "random", "--threads", "1"])
    main()
    lines = capsys.readouterr().out.splitlines()
    found = [tuple(cell.strip() for cell in line.split("|")[2:4]) for line in lines[2:]]
    assert found == [("K=4", "no"), ("K=4", "yes"), ("uneven", "no"), ("uneven", "yes")]
