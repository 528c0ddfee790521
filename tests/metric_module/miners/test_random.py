"""Random negatives, compared with a loop over pairs, and their frequencies."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from metric_module import UserError
from metric_module.miners import Random
from tests.oracles.miners import random_block, random_draws, random_negatives


@pytest.mark.parametrize("per_pair", [1, 3])
def test_equals_a_loop_over_pairs(per_pair: int) -> None:
    repeats = 0
    for seed in range(8):
        distances, positive, negative = random_block(seed)
        draws = random_draws(seed, 12, 17 * per_pair)
        found = Random(per_pair).select(distances, positive, negative, 0.2, partial(torch.narrow, draws, 1, 0))
        triplets = list(zip(*(part.tolist() for part in found), strict=True))
        assert triplets == random_negatives(positive, negative, per_pair, draws)
        assert len(triplets) == per_pair * int((positive & negative.any(dim=1, keepdim=True)).sum()) > 0
        repeats += len(triplets) - len(set(triplets))
    assert (repeats > 0) == (per_pair > 1), "with replacement"


def test_every_negative_comes_alike_often() -> None:
    anchors = 8000
    positive = torch.tensor([[False, True, False, False, True, False]]).expand(anchors, 6)
    negative = torch.tensor([[True, False, True, False, False, True]]).expand(anchors, 6)
    draws = random_draws(1, anchors, 2)
    found = Random().select(torch.rand(anchors, 6), positive, negative, 0.2, lambda n: draws[:, :n])
    frequency = torch.bincount(found.negative, minlength=6) / len(found.negative)
    expected = torch.tensor([1, 0, 1, 0, 0, 1]) / 3
    assert (frequency - expected).abs().max() < 4 * math.sqrt(0.25 / len(found.negative))


def test_numbers_next_to_one_stay_inside() -> None:
    positive, negative = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    for dtype in (torch.float32, torch.float64):
        draws = torch.full((1, 1), 1 - 2**-53, dtype=torch.float64).to(dtype)
        found = Random().select(torch.rand(1, 3), positive, negative, 0.2, partial(torch.narrow, draws, 1, 0))
        assert found.negative.tolist() == [1]


def test_refuses_less_than_one() -> None:
    with pytest.raises(UserError, match="random: expected per_pair >= 1, got 0"):
        Random(0)
