"""Splits of the samples of each class, so that val and test contain classes that are trained on.

Legend: N = samples, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.sampling.splits import FRACTIONS, SPLITS, check_split
from metric_module.errors import UserError


class _Shuffled(NamedTuple):
    """Samples by class, in random order within each: ids, place within the class, and size of the class, ``(N,)``."""

    ids: Tensor
    place: Tensor
    size: Tensor


def _shuffle(labels: Tensor, seed: int) -> _Shuffled:
    drawn = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))  # (N,)
    ids = drawn[labels[drawn].argsort(stable=True)]  # (N,)
    _, sizes = torch.unique_consecutive(labels[ids], return_counts=True)  # (C,)
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)  # (N,)
    return _Shuffled(ids, place, sizes.repeat_interleave(sizes))


def split_within(labels: Tensor, *, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> dict[str, Tensor]:
    """Split the samples of each class at random, so that val and test contain classes that are trained on.

    Val and test get their share of the samples of each class, rounded to the nearest whole number (half up), train the
    rest.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        seed: Seed of the order in each class.
        fractions: Shares of train, val and test, positive, with sum 1.

    Returns:
        Int64 ids of ``train``, ``val`` and ``test``, ascending.

    Example:
        >>> {name: len(ids) for name, ids in split_within(torch.tensor([0] * 10 + [1] * 5)).items()}
        {'train': 9, 'val': 3, 'test': 3}
    """
    check_split(seed, fractions)
    ids, place, size = _shuffle(labels, seed)  # (N,), (N,), (N,)
    val, test = ((size * share + 0.5).long() for share in fractions[1:])  # (N,)
    parts = {"val": place < val, "test": (place >= val) & (place < val + test), "train": place >= val + test}
    return {split: ids[parts[split]].sort().values for split in SPLITS}


def hold_out_within(labels: Tensor, fraction: float, *, seed: int = 0) -> Tensor:
    """Draw a share of the samples of each class at random.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        fraction: The share, rounded to the nearest whole number of samples of a class (half up).
        seed: Seed of the order in each class.

    Returns:
        Whether each sample was drawn, bool ``(N,)``.

    Raises:
        UserError: Of some class no sample would be drawn, or all.

    Example:
        >>> drawn = hold_out_within(torch.tensor([0] * 10 + [1] * 5), 0.2)
        >>> int(drawn[:10].sum()), int(drawn[10:].sum())
        (2, 1)
    """
    ids, place, size = _shuffle(labels, seed)  # (N,), (N,), (N,)
    count = (size * fraction + 0.5).long()  # (N,)
    wrong = (count < 1) | (count >= size)  # (N,)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise UserError(
            f"datamodule.val_fraction={fraction}: takes {int(count[first])} of a class of {int(size[first])} samples: "
            "expected at least 1 in val and in train"
        )
    return torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, ids[place < count], True)
