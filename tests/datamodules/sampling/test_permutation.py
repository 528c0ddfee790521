"""Tests of keyed permutations: bijections of any size, and statistically random."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.sampling.permutation import keyed_permutation
from metric_module.keyed_random import combine


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_value_comes_once(size: int, key: int) -> None:
    values = keyed_permutation(torch.tensor(key), torch.arange(size), size)
    assert values.sort().values.tolist() == list(range(size))


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 1000))
def test_a_value_depends_on_its_own_key_place_and_size_alone(sizes: list[int], seed: int) -> None:
    keys = combine(seed, torch.arange(len(sizes)))
    together = keyed_permutation(keys, torch.tensor(sizes) - 1, torch.tensor(sizes))
    alone = [int(keyed_permutation(key, torch.tensor(n - 1), n)) for key, n in zip(keys, sizes, strict=True)]
    assert together.tolist() == alone


def test_all_permutations_of_four_are_equally_likely() -> None:
    draws = 24_000
    values = keyed_permutation(combine(1, torch.arange(draws))[:, None], torch.arange(4), 4)
    counts = (values * torch.tensor([64, 16, 4, 1])).sum(dim=1).bincount()
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert ((counts - draws / 24) ** 2 / (draws / 24)).sum() < 50, "chi-square, 23 degrees of freedom, p = 0.001"


def test_a_large_permutation_looks_random() -> None:
    size = 20_000
    values = keyed_permutation(combine(2), torch.arange(size), size).double()
    places = torch.arange(size).double()
    bound = 4 / size**0.5
    assert torch.corrcoef(torch.stack([values, places]))[0, 1].abs() < bound
    assert torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1].abs() < bound
    assert (values == places).sum() < 8, "a random permutation has one fixed point on average"


def test_pinned_values() -> None:
    assert keyed_permutation(combine(0), torch.arange(10), 10).tolist() == [7, 2, 5, 0, 9, 6, 8, 4, 1, 3]
