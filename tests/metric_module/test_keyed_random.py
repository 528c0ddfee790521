"""Keyed random numbers: the reference hash, their distribution, and their independence of anything but keys."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_module.errors import UserError
from metric_module.keyed_random import combine, keyed_uniform, mix

MASK = (1 << 64) - 1
int64s = st.integers(-(1 << 63), (1 << 63) - 1)


def mix_by_the_book(z: int) -> int:
    """SplitMix64's finaliser on Python integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.lists(int64s, min_size=1, max_size=20))
def test_mix_is_splitmix64(numbers: list[int]) -> None:
    expected = [mix_by_the_book(x & MASK) for x in numbers]
    assert [x & MASK for x in mix(torch.tensor(numbers)).tolist()] == expected


def test_the_first_outputs_of_splitmix64_with_seed_1234567() -> None:
    golden = 0x9E3779B97F4A7C15 - (1 << 64)
    outputs = mix(torch.tensor(1234567) + torch.arange(1, 4) * golden)
    assert [x & MASK for x in outputs.tolist()] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_pinned_values() -> None:
    numbers = keyed_uniform(combine(0, torch.tensor([0, 1])), 2)
    assert numbers.tolist() == [
        [0.4067374055496422, 0.6633854060735197],
        [0.8145161643729961, 0.6892720890403068],
    ]


@settings(deadline=None)
@given(st.lists(int64s, min_size=1, max_size=5), st.integers(0, 7), st.integers(0, 7))
def test_a_number_depends_on_its_key_and_place_alone(keys: list[int], n: int, more: int) -> None:
    numbers = keyed_uniform(torch.tensor(keys), n)
    assert numbers.dtype == torch.float64
    assert numbers.shape == (len(keys), n)
    assert torch.equal(keyed_uniform(torch.tensor(keys), n + more)[:, :n], numbers)
    for row, key in enumerate(keys):
        assert torch.equal(keyed_uniform(torch.tensor([key]), n)[0], numbers[row])


@pytest.mark.parametrize("keys", [torch.arange(20_000), torch.arange(20_000) << 40, combine(7, torch.arange(20_000))])
def test_uniform_within_and_between_keys(keys: torch.Tensor) -> None:
    numbers = keyed_uniform(keys, 16)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers.float(), bins=100, min=0, max=1)
    expected = numbers.numel() / 100
    assert ((counts - expected) ** 2 / expected).sum() < 149, "chi-square, 99 degrees of freedom, p = 0.001"
    bound = 4.5 / len(keys) ** 0.5
    columns = torch.corrcoef(numbers.T) - torch.eye(16, dtype=torch.float64)
    assert columns.abs().max() < bound
    neighbours = torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]
    assert neighbours.abs() < bound


def test_every_bit_of_the_number_is_fair() -> None:
    bits = (keyed_uniform(torch.arange(30_000), 1)[:, 0] * 2.0**53).long()
    shares = torch.stack([(bits >> i & 1).double().mean() for i in range(53)])
    assert (shares - 0.5).abs().max() < 0.012


def test_global_seeds_neither_matter_nor_move() -> None:
    keys = torch.arange(5)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state()
    first = keyed_uniform(combine(3, keys), 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(keyed_uniform(combine(3, keys), 4), first)


def test_combine_tells_order_number_and_place_apart() -> None:
    keys = [combine(1, 2), combine(2, 1), combine(1, 2, 0), combine(3), combine(0, 3), combine(1, 1, 1)]
    assert len({int(key) for key in keys}) == len(keys)
    grid = combine(5, torch.arange(300)[:, None], torch.arange(300))
    assert grid.shape == (300, 300)
    assert len(set(grid.flatten().tolist())) == 90_000
    assert int(combine(5, 17, 4)) == int(grid[17, 4])


@settings(deadline=None)
@given(st.integers(-(1 << 70), 1 << 70))
def test_integers_are_taken_modulo_two_to_the_64(number: int) -> None:
    wrapped = ((number + (1 << 63)) & MASK) - (1 << 63)
    assert torch.equal(combine(number), combine(torch.tensor(wrapped)))


def test_small_integer_tensors_hash_like_int64() -> None:
    assert torch.equal(combine(torch.tensor([1, 2], dtype=torch.int8)), combine(torch.tensor([1, 2])))


def test_bad_keys() -> None:
    with pytest.raises(UserError, match=r"int64 tensor of shape \(B,\), got torch.float32 of shape \(3,\)"):
        keyed_uniform(torch.zeros(3), 1)
    with pytest.raises(UserError, match=r"got torch.int64 of shape \(2, 2\)"):
        keyed_uniform(torch.zeros(2, 2, dtype=torch.int64), 1)
    with pytest.raises(UserError, match="n >= 0 numbers per key, got -1"):
        keyed_uniform(torch.arange(2), -1)


def test_bad_parts() -> None:
    with pytest.raises(UserError, match="at least one part"):
        combine()
    with pytest.raises(UserError, match=r"got a tensor of torch\.float64"):
        combine(1, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(UserError, match=r"got 1\.5"):
        combine(1.5)  # type: ignore[arg-type]
