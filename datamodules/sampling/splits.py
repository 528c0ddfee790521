"""Class-disjoint splits: no class of one split is in another, as in the field's protocol for unseen classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metric_module.errors import UserError

SPLITS = ("train", "val", "test")
FRACTIONS = (0.6, 0.2, 0.2)


class Split(NamedTuple):
    """Class names of each split, sorted."""

    train: list[str]
    val: list[str]
    test: list[str]


def split_classes(names: Collection[str], *, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Split classes by ``numpy.random.default_rng(seed).permutation`` of their sorted names.

    Val and test get their fraction of the classes, rounded to the nearest whole number (half up), train the rest.

    Args:
        names: Distinct names of the classes, in any order.
        seed: Names the permutation; no other random state has a part in it.
        fractions: Shares of train, val and test, positive and adding up to 1.

    Raises:
        UserError: Names repeat, the fractions are no such shares, or a split is left without a class.

    Example:
        >>> [len(part) for part in split_classes([f"class {i}" for i in range(10)])]
        [6, 2, 2]
    """
    _refuse_equal(names)
    ranked = sorted(names)
    part = _part_of_rank(len(ranked), seed, fractions).tolist()
    found = ([name for name, owner in zip(ranked, part, strict=True) if owner == number] for number in range(3))
    return Split(*found)


def _part_of_rank(count: int, seed: int, fractions: Sequence[float]) -> Tensor:
    """Which split each class is of, by the place of its name among all: 0 train, 1 val, 2 test; uint8 ``(C,)``."""
    train, val = _sizes(count, fractions)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))  # (C,)
    part = torch.zeros(count, dtype=torch.uint8)
    part[order[train:]] = 1
    part[order[train + val :]] = 2
    return part


def _refuse_equal(names: Collection[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"class names to split must be distinct, got more than once: {', '.join(twice)}")


def _sizes(count: int, fractions: Sequence[float]) -> tuple[int, int]:
    """Classes of train and of val."""
    _check_fractions(fractions)
    val, test = (int(count * fraction + 0.5) for fraction in fractions[1:])
    train = count - val - test
    if min(train, val, test) < 1:
        raise UserError(
            f"splitting {count} classes by {tuple(fractions)} leaves a split without a class: "
            f"{train} train, {val} val, {test} test"
        )
    return train, val


def check_split(seed: int, fractions: Sequence[float]) -> None:
    """Accept what a split is made with.

    Args:
        seed: ``split_seed`` of a data module.
        fractions: Its ``fractions``.

    Raises:
        UserError: The seed is no integer from 0, or the fractions are not three shares of one whole.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"datamodule.split_seed: expected an integer >= 0, got {seed}")
    _check_fractions(fractions)


def _check_fractions(fractions: Sequence[float]) -> None:
    sound = isinstance(fractions, Sequence) and len(fractions) == 3
    sound = sound and all(isinstance(share, int | float) and share > 0 for share in fractions)
    if not sound or not abs(sum(fractions) - 1) <= 1e-9:
        got = tuple(fractions) if isinstance(fractions, Sequence) and not isinstance(fractions, str) else fractions
        raise UserError(f"datamodule.fractions: expected three positive fractions that add up to 1, got {got}")


def hold_out(names: Collection[str], fraction: float, *, seed: int = 0) -> set[str]:
    """Draw a share of some names, the first by ``numpy.random.default_rng(seed).permutation`` of the sorted ones.

    Args:
        names: Distinct names.
        fraction: The share, rounded to the nearest whole number of names (half up).
        seed: Names the permutation.

    Raises:
        UserError: None would be drawn, or all.

    Example:
        >>> sorted(hold_out(["a", "b", "c", "d"], 0.5))
        ['a', 'c']
    """
    count = int(len(names) * fraction + 0.5)
    if not 1 <= count < len(names):
        raise UserError(
            f"val_fraction={fraction} of {len(names)} takes {count}: expected at least 1 in val and in train"
        )
    ranked = sorted(names)
    return {ranked[place] for place in np.random.default_rng(seed).permutation(len(ranked))[:count]}


def check_no_fractions(fractions: Sequence[float], reason: str) -> None:
    """Refuse fractions where something else says what is in train, val and test.

    Args:
        fractions: What was given; the default of :class:`datamodules.PKDataModule` is no choice.
        reason: What says it instead.

    Raises:
        UserError: They are not the default.
    """
    if tuple(fractions) != FRACTIONS:
        raise UserError(f"datamodule.fractions: {reason}, got {tuple(fractions)}")


def split_samples(
    labels: Tensor, names: Sequence[str], *, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> dict[str, Tensor]:
    """Ids of the samples of each split, when the classes are split as :func:`split_classes` does.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        names: Name of each class, by label, distinct.
        seed: Names the permutation.
        fractions: Shares of train, val and test.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending.

    Raises:
        UserError: As :func:`split_classes`.
    """
    _refuse_equal(names)
    ranked = torch.tensor(sorted(range(len(names)), key=list(names).__getitem__), dtype=torch.int64)  # (C,)
    rank = torch.empty_like(ranked)
    rank[ranked] = torch.arange(len(names))
    return split_ranked(rank[labels], len(names), seed=seed, fractions=fractions)


def split_ranked(
    labels: Tensor, classes: int, *, seed: int = 0, fractions: Sequence[float] = (0.6, 0.2, 0.2)
) -> dict[str, Tensor]:
    """The same, when labels are in the order of their names already: nothing is sorted, whatever the number of classes.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        classes: How many classes there are, C.
        seed: Names the permutation.
        fractions: Shares of train, val and test.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending.

    Raises:
        UserError: The fractions are no such shares, or a split is left without a class.
    """
    of_sample = _part_of_rank(classes, seed, fractions)[labels]  # (N,)
    return {split: (of_sample == number).nonzero()[:, 0] for number, split in enumerate(Split._fields)}


def fold_samples(
    splits: Mapping[str, Tensor], labels: Tensor, names: Sequence[str], *, fold: int, folds: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """Validate on one fold of the classes, train on the others; test stays as it is (Musgrave et al. 2020).

    The classes of train and val together are dealt out to the folds in the order of
    ``numpy.random.default_rng(seed).permutation`` of their sorted names, so that folds differ by one class at most.

    Args:
        splits: Ids of ``train``, ``val`` and ``test``.
        labels: Class of each sample, int64 ``(N,)``.
        names: Name of each class, by label; without names, labels are in their own order.
        fold: Which fold is val, from 0.
        folds: How many there are, at least 2.
        seed: Names the permutation.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending but for test.

    Raises:
        UserError: If there is no such fold, or a fold would have no class.
    """
    if folds < 2:
        raise UserError(f"datamodule.folds: expected an integer >= 2, got {folds}")
    if not 0 <= fold < folds:
        raise UserError(f"datamodule.fold: expected 0 to {folds - 1}, one of {folds} folds, got {fold}")
    rest = torch.cat([splits["train"], splits["val"]]).sort().values  # (n,)
    classes = torch.unique(labels[rest]).tolist()
    if len(classes) < folds:
        raise UserError(f"datamodule.folds={folds}: train and val have only {len(classes)} classes")
    ranked = sorted(classes, key=lambda label: names[label]) if len(names) else classes
    order = np.random.default_rng(seed).permutation(len(ranked)).tolist()
    chosen = torch.tensor([ranked[place] for place in order[fold::folds]])  # (c,)
    held = torch.isin(labels[rest], chosen)  # (n,)
    return {"train": rest[~held], "val": rest[held], "test": splits["test"]}
