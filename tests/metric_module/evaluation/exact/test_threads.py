"""Blocks on several threads give equal figures and restore the number of threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from metric_module.evaluation import retrieval_metrics
from metric_module.evaluation.exact.threads import in_threads
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_figures_do_not_depend_on_threads(threads: int) -> None:
    x, labels = cloud(seed=21)
    expected = retrieval_metrics(x, labels)
    torch.set_num_threads(threads)
    with small_blocks(queries=9):
        assert retrieval_metrics(x.requires_grad_(), labels) == expected
    assert torch.get_num_threads() == threads
    assert 0 < expected["map"] < 1


@pytest.mark.parametrize("threads", [1, 4])
def test_work_runs_without_gradients_in_order(threads: int) -> None:
    torch.set_num_threads(threads)
    meet = threading.Barrier(threads)

    def work(number: int) -> tuple[int, bool]:
        meet.wait(timeout=30)  # passes only if as many tasks run at once
        return number, torch.is_grad_enabled()

    assert in_threads(work, range(8)) == [(number, False) for number in range(8)]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == threads


def test_an_error_comes_through() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError, match="by zero"):
        in_threads(lambda number: 1 // number, [2, 1, 0])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("inference", [True, False])
def test_they_write_into_what_the_caller_made(inference: bool) -> None:
    torch.set_num_threads(2)
    with torch.inference_mode(inference):
        total = torch.zeros(3)
        in_threads(lambda number: total[number : number + 1].add_(torch.ones(1)).item(), range(3))
    assert total.tolist() == [1, 1, 1]
