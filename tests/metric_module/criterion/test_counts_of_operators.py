"""Operators and host syncs of a step of mining stay within the bars of ``benchmarks.counts``."""

from __future__ import annotations

import pytest
import torch

from benchmarks.counts import OPERATORS, counted, most_operators, most_syncs, works
from benchmarks.mining_cases import MINED, Work


def name_of(work: Work) -> str:
    return f"{work.miner}-{'uneven' if work.per_class is None else 'even'}-{'census' if work.census else 'plain'}"


@pytest.mark.parametrize("work", works(list(MINED)), ids=name_of)
def test_operators_and_host_syncs(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many operators as with two threads, without a second thread that would compete with other tests.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found, bar = counted(work), most_operators(work)
    assert 20 < found.criterion.operators < found.module.operators  # the module adds its diagnostics
    assert (bar is None) == (work.miner not in OPERATORS)
    assert bar is None or found.criterion.operators <= bar
    assert 0 < max(found.criterion.syncs, found.module.syncs) <= most_syncs(work)
