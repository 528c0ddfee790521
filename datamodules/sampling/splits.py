"""Class-disjoint splits: each class is in a single split, so that evaluation sees unseen classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.checks import check_at_least
from metric_module.errors import UserError

SPLITS = ("train", "val", "test")
FRACTIONS = (0.6, 0.2, 0.2)


class TooFewClassesError(UserError):
    """A split by class that would leave a split without a class."""


class Split(NamedTuple):
    """Class names in each split, sorted."""

    train: list[str]
    val: list[str]
    test: list[str]


def split_classes(names: Collection[str], *, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Split classes by ``numpy.random.default_rng(seed).permutation`` of their sorted names.

    Val and test get their share of the classes, rounded to the nearest whole number (half up), train the rest.

    Args:
        names: Distinct names of the classes, in any order.
        seed: Seed of the permutation; no other random state is used.
        fractions: Shares of train, val and test, positive, with sum 1.

    Raises:
        UserError: Names repeat, the fractions are not three positive shares with sum 1, or a split has no class.

    Example:
        >>> [len(part) for part in split_classes([f"class {i}" for i in range(10)])]
        [6, 2, 2]
    """
    ordered = sorted(names)
    splits = split_samples(torch.arange(len(ordered)), ordered, seed=seed, fractions=fractions)
    return Split(*([ordered[place] for place in ids.tolist()] for ids in splits.values()))


def _split_numbers(count: int, seed: int, fractions: Sequence[float]) -> Tensor:
    """Number the split of each class, by the order of its name: 0 train, 1 val, 2 test; uint8 ``(C,)``."""
    train, val = _sizes(count, fractions)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))  # (C,)
    number = torch.zeros(count, dtype=torch.uint8)
    number[order[train:]] = 1
    number[order[train + val :]] = 2
    return number


def _sizes(count: int, fractions: Sequence[float]) -> tuple[int, int]:
    """Count the classes of train and of val."""
    _check_fractions(fractions)
    val, test = (int(count * fraction + 0.5) for fraction in fractions[1:])
    train = count - val - test
    if min(train, val, test) < 1:
        raise TooFewClassesError(
            f"splitting {count} classes by {tuple(fractions)} leaves a split without a class: "
            f"{train} train, {val} val, {test} test"
        )
    return train, val


def check_split(seed: int, fractions: Sequence[float]) -> None:
    """Accept the arguments of a split.

    Args:
        seed: ``split_seed`` of a data module.
        fractions: ``fractions`` of a data module.

    Raises:
        UserError: The seed is not an integer >= 0, or the fractions are not three positive shares with sum 1.
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
    """Draw a share of names: the first in ``numpy.random.default_rng(seed).permutation`` of the sorted names.

    Args:
        names: Distinct names.
        fraction: The share, rounded to the nearest whole number of names (half up).
        seed: Seed of the permutation.

    Raises:
        UserError: No name would be drawn, or all.

    Example:
        >>> sorted(hold_out(["a", "b", "c", "d"], 0.5))
        ['a', 'c']
    """
    count = int(len(names) * fraction + 0.5)
    if not 1 <= count < len(names):
        raise UserError(
            f"val_fraction={fraction} of {len(names)} takes {count}: expected at least 1 in val and in train"
        )
    ordered = sorted(names)
    return {ordered[place] for place in np.random.default_rng(seed).permutation(len(ordered))[:count]}


def check_no_fractions(fractions: Sequence[float], reason: str) -> None:
    """Refuse fractions in a data module whose split is defined otherwise.

    Args:
        fractions: ``fractions`` of the data module; the default is accepted.
        reason: What defines the split, for the message.

    Raises:
        UserError: The fractions are not the default.
    """
    if tuple(fractions) != FRACTIONS:
        raise UserError(f"datamodule.fractions: {reason}, got {tuple(fractions)}")


def split_samples(
    labels: Tensor, names: Sequence[str], *, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> dict[str, Tensor]:
    """Split samples by class, as :func:`split_classes` splits the classes.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        names: Name of each class, by label, distinct.
        seed: Seed of the permutation.
        fractions: Shares of train, val and test, positive, with sum 1.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending.

    Raises:
        UserError: Names repeat, the fractions are not three positive shares with sum 1, or a split has no class.
    """
    if len(set(names)) < len(names):
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"class names to split must be distinct, got more than once: {', '.join(repeated)}")
    order = torch.tensor(sorted(range(len(names)), key=list(names).__getitem__), dtype=torch.int64)  # (C,)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(names))
    return split_ranked(position[labels], len(names), seed=seed, fractions=fractions)


def split_ranked(
    labels: Tensor, classes: int, *, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> dict[str, Tensor]:
    """Split samples by class as :func:`split_samples` does, for labels in the order of their names: nothing is sorted.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        classes: Number of classes, C.
        seed: Seed of the permutation.
        fractions: Shares of train, val and test, positive, with sum 1.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending.

    Raises:
        UserError: The fractions are not three positive shares with sum 1, or a split has no class.
    """
    number_of = _split_numbers(classes, seed, fractions)[labels]  # (N,)
    return {split: (number_of == number).nonzero()[:, 0] for number, split in enumerate(SPLITS)}


def fold_samples(
    splits: Mapping[str, Tensor], labels: Tensor, names: Sequence[str], *, fold: int, folds: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """Validate on one fold of the classes, train on the others; test is unchanged (Musgrave et al. 2020).

    The classes of train and val together are assigned to the folds in turn, in the order of
    ``numpy.random.default_rng(seed).permutation`` of their sorted names, so fold sizes differ by at most one class.

    Args:
        splits: Ids of ``train``, ``val`` and ``test``, int64.
        labels: Class of each sample, int64 ``(N,)``.
        names: Name of each class, by label; empty: classes are ordered by label.
        fold: Fold to use as val, from 0.
        folds: Number of folds, at least 2.
        seed: Seed of the permutation.

    Returns:
        Int64 ids of ``train`` and ``val``, ascending, and of ``test``, unchanged.

    Raises:
        UserError: The fold does not exist.
        TooFewClassesError: A fold would have no class.
    """
    check_at_least("datamodule.folds", folds, 2)
    if not 0 <= fold < folds:
        raise UserError(f"datamodule.fold: expected 0 to {folds - 1}, one of {folds} folds, got {fold}")
    rest = torch.cat([splits["train"], splits["val"]]).sort().values  # (n,)
    classes = torch.unique(labels[rest]).tolist()
    if len(classes) < folds:
        raise TooFewClassesError(f"datamodule.folds={folds}: train and val have only {len(classes)} classes")
    ordered = sorted(classes, key=lambda label: names[label]) if len(names) else classes
    order = np.random.default_rng(seed).permutation(len(ordered)).tolist()
    chosen = torch.tensor([ordered[place] for place in order[fold::folds]])  # (c,)
    held = torch.isin(labels[rest], chosen)  # (n,)
    return {"train": rest[~held], "val": rest[held], "test": splits["test"]}
