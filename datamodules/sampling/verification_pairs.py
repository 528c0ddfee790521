"""Pairs that a verification protocol lists in a file.

Legend: P = pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.messages import shortened
from datamodules.sources.paths import read_lines
from metric_module.errors import UserError


class ListedPairs(NamedTuple):
    """Listed pairs of samples.

    Attributes:
        pairs: Ids of the two samples, int64 ``(P, 2)``.
        folds: Fold of each pair, int64 ``(P,)``.
    """

    pairs: Tensor
    folds: Tensor


def read_pairs(path: str | Path, ids: Mapping[tuple[str, int], int]) -> ListedPairs:
    """Read ``pairs.txt`` as LFW publishes it (Huang et al. 2007).

    The first line contains the number of folds and the number of pairs of each kind in a fold, or only the latter if
    there is one fold. Then follow, for each fold, pairs of one person, ``name number number``, and pairs of two people,
    ``name number name number``, separated by tabs.

    Args:
        path: The file.
        ids: Id of the sample with each class name and number.

    Raises:
        UserError: The file is missing, a line has another form, the number of pairs differs from the first line, or a
            sample is missing.
    """
    lines = [line.split("\t") for line in read_lines(Path(path)) if line.strip()]
    head = lines[0] if lines else []
    if not 1 <= len(head) <= 2 or not all(word.strip().isdigit() for word in head):
        raise UserError(f"{path}: expected the number of folds and of pairs in line 1, got {' '.join(head)!r}")
    folds, each = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    if len(lines) - 1 != 2 * folds * each:
        raise UserError(f"{path}: expected 2 x {folds} x {each} pairs, got {len(lines) - 1}")
    named = [_pair(path, number, words) for number, words in enumerate(lines[1:], start=2)]
    missing = sorted({sample for pair in named for sample in pair if sample not in ids})
    if missing:
        shown = shortened([f"{name} {number}" for name, number in missing], 5)
        raise UserError(f"{path}: {len(missing)} samples are not in the data set: {shown}")
    pairs = torch.tensor([[ids[first], ids[second]] for first, second in named])  # (P, 2)
    return ListedPairs(pairs, torch.arange(len(named)) // (2 * each))


def _pair(path: str | Path, number: int, words: list[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    """Parse the two samples of a line."""
    if len(words) == 3:
        words = [words[0], words[1], words[0], words[2]]
    if len(words) != 4 or not (words[1].strip().isdigit() and words[3].strip().isdigit()):
        raise UserError(
            f"{path}: expected name, number, number or name, number, name, number in line {number}, got {words}"
        )
    return (words[0], int(words[1])), (words[2], int(words[3]))
