"""Average of the weights: its formula, its use, and a resume."""

from __future__ import annotations

import pytest
import torch

from metric_module import UserError
from metric_module.callbacks import EMA


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_decay_out_of_range(decay: float) -> None:
    with pytest.raises(UserError, match=rf"ema: expected 0 <= decay < 1, got {decay}"):
        EMA(decay)


def test_the_average_follows_its_formula() -> None:
    values = [torch.tensor([float(number**2), -number]) for number in range(6)]
    average = values[0].clone()
    expected = values[0].clone()
    ema = EMA(decay=0.6)
    for count, value in enumerate(values[1:], start=1):
        ema._average([average], [value], torch.tensor(count))
        decay = min(0.6, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * value
    assert expected[0] > 1
    torch.testing.assert_close(average, expected)


def test_whole_numbers_are_copied() -> None:
    average = torch.tensor(3)
    EMA()._average([average], [torch.tensor(8)], torch.tensor(4))
    assert average == 8
