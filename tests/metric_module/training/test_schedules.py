"""Shape of the warm-up and cosine schedule, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from metric_module import UserError
from metric_module.training.schedules import warmup_cosine


def rates(total: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warmup_cosine(optimizer, total, warmup)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_rises_then_falls_to_zero() -> None:
    expected = [1.0, 2.0, *(1 + math.cos(math.pi * k / 8) for k in range(8)), 0.0]
    assert rates(10, 0.2) == pytest.approx(expected)


def test_without_warmup_starts_at_the_top() -> None:
    assert rates(4, 0.0) == pytest.approx([2.0, 1 + math.cos(math.pi / 4), 1.0, 1 - math.cos(math.pi / 4), 0.0])


@pytest.mark.parametrize(("total", "warmup", "message"), [(0, 0.1, "total_steps >= 1, got 0"), (5, 1.0, r"got 1\.0")])
def test_refuses_what_is_not_allowed(total: int, warmup: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rates(total, warmup)
