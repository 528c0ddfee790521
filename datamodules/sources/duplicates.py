"""Samples of equal content: found by 64-bit hashes, named, and left out on request.

Legend: N = samples, n = samples that are used, g = contents that several samples have, m = samples with such a content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.messages import LISTED, listed, shortened
from datamodules.sampling.dataset import Samples, Source
from datamodules.sources.preflight import split_numbers
from metric_module.errors import UserError

Hashes = npt.NDArray[np.int64]
UNKNOWN = 0
"""Hash of a content that is unknown or empty, which equals no other."""
BLOCK = 1 << 14
FIRST = 5
"""Number of repeated contents that a warning names."""


def hash_rows(rows: Tensor) -> Hashes:
    """Hash the bytes of each row of an array ``(N, ...)``, block by block: int64 ``(N,)``."""
    hashes = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK].flatten(1).contiguous().view(torch.uint8).numpy()
        hashes[start : start + BLOCK] = [hash(row.tobytes()) for row in block]
    return hashes


class EqualContent(NamedTuple):
    """Groups of samples with the same content.

    Attributes:
        ids: The samples, int64 ``(m,)``, group by group, ascending in each.
        starts: Where each group starts in ``ids``, int64 ``(g,)``.
        labels: Whether a group has several labels, bool ``(g,)``.
        splits: Whether a group is in several splits, bool ``(g,)``.
    """

    ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.bool_]
    splits: npt.NDArray[np.bool_]

    @property
    def repeated(self) -> npt.NDArray[np.bool_]:
        """Whether a group has one label and is in one split, bool ``(g,)``."""
        return ~(self.labels | self.splits)

    def surplus(self) -> Tensor:
        """List the samples to leave out: all but the first of a group, and all of a group with several labels.

        Returns:
            Int64 ids, ascending.
        """
        left_out = np.repeat(self.labels, np.diff(self.starts, append=len(self.ids)))  # (m,)
        first = np.zeros(len(self.ids), dtype=np.bool_)
        first[self.starts] = True
        return torch.from_numpy(np.sort(self.ids[left_out | ~first]))

    def spell(self, chosen: npt.NDArray[np.bool_], name: Callable[[int], str], most: int = LISTED) -> list[str]:
        """Name the samples of some groups, one text for each group; beyond the first ``most`` only their number counts.

        Args:
            chosen: The groups, bool ``(g,)``.
            name: Names a sample.
            most: Number of groups to spell out.
        """
        ends = np.append(self.starts[1:], len(self.ids))
        places = np.flatnonzero(chosen)
        spelt = [" = ".join(map(name, self.ids[self.starts[at] : ends[at]].tolist())) for at in places[:most]]
        return spelt + [""] * (len(places) - len(spelt))


def find_equal(hashes: Hashes, labels: Tensor, splits: Mapping[str, Tensor]) -> EqualContent:
    """Group the samples of all splits by content.

    Args:
        hashes: Hash of the content of each sample, int64 ``(N,)``; 0: unknown.
        labels: Class of each sample, int64 ``(N,)``.
        splits: Ids of the samples in each split, int64.

    Example:
        >>> splits = {"train": torch.tensor([0, 1]), "val": torch.tensor([2])}
        >>> find_equal(np.array([7, 5, 7]), torch.tensor([0, 1, 0]), splits).ids.tolist()
        [0, 2]
    """
    number = split_numbers(splits, len(hashes)).numpy()  # (N,)
    used = np.flatnonzero((number > 0) & (hashes != UNKNOWN))  # (n,)
    used = used[np.argsort(hashes[used], kind="stable")]
    new = np.append(True, np.diff(hashes[used]) != 0)[: len(used)]  # (n,)
    alone = new & np.append(new[1:], True)[: len(used)]
    ids, new = used[~alone], new[~alone]  # (m,)
    starts = np.flatnonzero(new)  # (g,)
    first = np.argsort(ids[starts], kind="stable")  # groups in order of their first sample, whatever the hashes are
    sizes = np.diff(starts, append=len(ids))
    ids = np.concatenate([ids[starts[at] : starts[at] + sizes[at]] for at in first]) if len(first) else ids
    starts = np.cumsum(sizes[first]) - sizes[first]
    label = labels.numpy()[ids]
    return EqualContent(ids, starts, _differ(label, starts), _differ(number[ids], starts))


def _differ(
    values: npt.NDArray[np.int64] | npt.NDArray[np.int8], starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return whether the values ``(m,)`` of each group differ, bool ``(g,)``."""
    if not len(starts):
        return np.zeros(0, dtype=np.bool_)
    differ: npt.NDArray[np.bool_] = np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)
    return differ


def report_duplicates(samples: Samples, refuse: bool) -> list[str]:
    """Name samples of equal content: under several labels, in several splits, or repeated within both.

    Args:
        samples: The data set.
        refuse: Whether the first two are problems, and the third is worth a warning; otherwise one line counts all.

    Returns:
        A line for each kind of problem.
    """
    equal = equal_in(samples)
    if equal is None or not len(equal.ids):
        return []
    across = equal.splits & ~equal.labels
    if not refuse:
        counts = f"{equal.labels.sum():,} with several labels, {across.sum():,} in several splits"
        rank_zero_info(
            f"data: {len(equal.ids):,} samples share {len(equal.starts):,} contents ({counts}), and all are used "
            "(datamodule.duplicates=keep)"
        )
        return []
    if equal.repeated.any():
        more = int(np.diff(equal.starts, append=len(equal.ids))[equal.repeated].sum() - equal.repeated.sum())
        first = shortened(equal.spell(equal.repeated, _naming(samples), FIRST), FIRST)
        rank_zero_warn(
            f"data: {more:,} samples repeat another one of their class ({first}); datamodule.duplicates=drop leaves "
            "them out, keep uses them without this warning"
        )
    return [
        *listed(
            "contents have several labels (datamodule.duplicates=drop leaves them out, keep uses them)",
            equal.spell(equal.labels, _naming(samples)),
        ),
        *listed(
            "contents are in several splits (datamodule.duplicates=drop uses the first of each, keep all)",
            equal.spell(across, _naming(samples)),
        ),
    ]


def without_duplicates(samples: Samples) -> Samples:
    """Leave samples of equal content out of the splits: all but the first, and all if they have several labels.

    Args:
        samples: The data set.

    Raises:
        UserError: A split would be empty, or a pair that verification compares would lose a sample.
    """
    equal = equal_in(samples)
    if equal is None or not len(equal.ids):
        return samples
    surplus = equal.surplus()
    listed_pairs = samples.listed
    if listed_pairs is not None and torch.isin(listed_pairs.pairs, surplus).any():
        raise UserError(
            "datamodule.duplicates=drop: would leave out images of listed pairs; give datamodule.duplicates=keep"
        )
    splits = {name: ids[~torch.isin(ids, surplus)] for name, ids in samples.splits.items()}
    if empty := [name for name, ids in splits.items() if not len(ids)]:
        raise UserError(f"datamodule.duplicates=drop: leaves no sample in {', '.join(empty)}")
    rank_zero_info(
        f"data: {len(surplus):,} samples of equal content are left out (datamodule.duplicates=drop); "
        f"{equal.labels.sum():,} contents had several labels"
    )
    return samples._replace(splits=splits)


def equal_in(samples: Samples) -> EqualContent | None:
    """Group samples of equal content; None if their source does not compare contents.

    Args:
        samples: The data set.
    """
    hashes = samples.fetch.contents() if isinstance(samples.fetch, Source) else None
    return None if hashes is None else find_equal(hashes, samples.labels, samples.splits)


def _naming(samples: Samples) -> Callable[[int], str]:
    """Make a function that names a sample with its label and split."""
    assert isinstance(samples.fetch, Source)
    source, names = samples.fetch, ["", *samples.splits]
    numbers = split_numbers(samples.splits, len(samples.labels))

    def name(row: int) -> str:
        """Name a sample: ``a.png (cat, train)``."""
        return f"{source.name_of(row)} ({samples.class_name(int(samples.labels[row]))}, {names[int(numbers[row])]})"

    return name
