"""Tests of class splits: disjoint, complete, of the right size, and a function of names and seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import ArraysDataModule, MultiLabelDataModule
from datamodules.sampling.splits import fold_samples, split_classes, split_samples
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


@pytest.mark.parametrize("kind", [ArraysDataModule, MultiLabelDataModule])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split_seed": -1}, "datamodule.split_seed: expected an integer >= 0, got -1"),
        ({"split_seed": 0.5}, "datamodule.split_seed: expected an integer >= 0, got 0.5"),
        ({"split_seed": None}, "datamodule.split_seed: expected an integer >= 0, got None"),
        ({"fractions": 0.5}, "datamodule.fractions: expected three positive fractions that add up to 1, got 0.5"),
        ({"fractions": "abc"}, "datamodule.fractions: expected three positive fractions that add up to 1, got abc"),
        ({"fractions": (0.5, 0.5, float("nan"))}, r"that add up to 1, got \(0.5, 0.5, nan\)"),
        ({"fractions": [1, "a", 0]}, r"that add up to 1, got \(1, 'a', 0\)"),
        ({"fractions": [0.5, 0.5]}, r"that add up to 1, got \(0.5, 0.5\)"),
    ],
)
def test_settings_of_a_split(kind: type, values: dict[str, object], message: str) -> None:
    """Bad fractions are refused before any data is read."""
    with pytest.raises(UserError, match=f"{message}$"):
        kind(path="nowhere.npz", **values)


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 40), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_disjoint_and_each_class_is_val_once(classes: int, folds: int, seed: int) -> None:
    names = [f"class-{number:02d}" for number in range(classes)]
    labels = torch.arange(classes).repeat_interleave(3)[torch.randperm(3 * classes)]  # (N,)
    before = split_samples(labels, names, seed=3)
    rest = sorted(set(labels[torch.cat([before["train"], before["val"]])].tolist()))
    held: list[int] = []
    for fold in range(folds):
        parts = fold_samples(before, labels, names, fold=fold, folds=folds, seed=seed)
        assert torch.equal(parts["test"], before["test"])
        train, val = (set(labels[parts[name]].tolist()) for name in ("train", "val"))
        assert not train & val and sorted(train | val) == rest
        assert abs(len(val) - len(rest) / folds) < 1
        ids = torch.cat([parts[name] for name in ("train", "val", "test")])
        assert sorted(ids.tolist()) == list(range(len(labels)))
        held += val
    assert sorted(held) == rest


def test_folds_go_by_names_and_their_seed_alone() -> None:
    names = [f"class-{number:02d}" for number in range(20)]
    labels = torch.arange(20).repeat(2)
    before = split_samples(labels, names)
    parts = fold_samples(before, labels, names, fold=1)
    torch.manual_seed(9)
    assert torch.equal(fold_samples(before, labels, names, fold=1)["val"], parts["val"])
    assert not torch.equal(fold_samples(before, labels, names, fold=1, seed=1)["val"], parts["val"])
    backwards = {name: ids + 0 for name, ids in before.items()}
    other = fold_samples(backwards, 19 - labels, names[::-1], fold=1)
    assert torch.equal(other["val"], parts["val"]), "the labels are other numbers for the same names"
    assert len(fold_samples(before, labels, (), fold=1)["val"]) == len(parts["val"])


def test_bad_folds() -> None:
    labels = torch.arange(10)
    before = split_samples(labels, NAMES[:10])
    for fold in (-1, 4):
        with pytest.raises(UserError, match=rf"datamodule.fold: expected 0 to 3, one of 4 folds, got {fold}$"):
            fold_samples(before, labels, NAMES[:10], fold=fold)
    with pytest.raises(UserError, match=r"datamodule.folds: expected an integer >= 2, got 1$"):
        fold_samples(before, labels, NAMES[:10], fold=0, folds=1)
    with pytest.raises(UserError, match=r"datamodule.folds=9: train and val have only 8 classes$"):
        fold_samples(before, labels, NAMES[:10], fold=0, folds=9)
