"""Splits of classes: disjoint, complete, of the right size, and a function of names and seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.splits import split_classes
from metric_module.errors import UserError

NAMES = [f"class-{i:04d}" for i in range(1055)]


@settings(deadline=None)
@given(st.sets(st.text(max_size=5), min_size=5, max_size=60), st.integers(0, 99), st.randoms())
def test_disjoint_complete_and_blind_to_order(names: set[str], seed: int, shuffler: object) -> None:
    split = split_classes(names, seed=seed)
    assert sorted([*split.train, *split.val, *split.test]) == sorted(names)
    assert len(split.val) == len(split.test) == int(len(names) * 0.2 + 0.5)
    shuffled = sorted(names, key=lambda _: shuffler.random())  # type: ignore[attr-defined]
    torch.manual_seed(seed + 1)
    before = torch.get_rng_state()
    assert split_classes(shuffled, seed=seed) == split
    assert torch.equal(torch.get_rng_state(), before)


def test_figures_of_the_default_protocol() -> None:
    assert [len(part) for part in split_classes(NAMES)] == [633, 211, 211]
    assert [len(part) for part in split_classes(NAMES, fractions=(0.7, 0.1, 0.2))] == [738, 106, 211]


def test_seeds_give_independent_splits() -> None:
    first, second = (set(split_classes(NAMES, seed=seed).test) for seed in (0, 1))
    assert 20 <= len(first & second) <= 66, "211 of 1055 twice: 42 in common, standard deviation 5.2"


def test_pinned_split() -> None:
    assert split_classes(NAMES[:10]).test == ["class-0001", "class-0008"]


def test_bad_splits() -> None:
    with pytest.raises(UserError, match=r"must be distinct, got more than once: a, c$"):
        split_classes(["a", "c", "b", "a", "c"])
    with pytest.raises(UserError, match=r"add up to 1, got \(0.6, 0.2, 0.3\)"):
        split_classes(NAMES, fractions=(0.6, 0.2, 0.3))
    with pytest.raises(UserError, match=r"got \(1.2, -0.1, -0.1\)"):
        split_classes(NAMES, fractions=(1.2, -0.1, -0.1))
    with pytest.raises(UserError, match=r"got \(0.5, 0.5\)"):
        split_classes(NAMES, fractions=(0.5, 0.5))
    with pytest.raises(UserError, match=r"splitting 2 classes .* without a class: 2 train, 0 val, 0 test"):
        split_classes(["a", "b"])
