"""Pairs that a verification protocol lists in a file.

Legend: P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.errors import UserError

SHOWN = 5


class ListedPairs(NamedTuple):
    """Pairs of samples.

    Attributes:
        pairs: Ids of the samples, int64 ``(P, 2)``.
        folds: Which fold each pair is of, int64 ``(P,)``.
    """

    pairs: Tensor
    folds: Tensor


def read_pairs(path: str | Path, ids: Mapping[tuple[str, int], int]) -> ListedPairs:
    """Read ``pairs.txt`` as LFW publishes it (Huang et al. 2007).

    The first line has the number of folds and of pairs of each kind in a fold, or that number alone if there is one
    fold. Then come, for each fold, the pairs of one person, ``name number number``, and those of two,
    ``name number name number``, with tabs between.

    Args:
        path: The file.
        ids: Id of the sample of each class name and number.

    Raises:
        UserError: There is no such file, a line is of another form, there are more or fewer than announced, or a
            sample is missing.
    """
    try:
        lines = [line.split("\t") for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"datamodule.pairs_file: cannot read {path} ({error})") from None
    head = lines[0] if lines else []
    if not 1 <= len(head) <= 2 or not all(word.strip().isdigit() for word in head):
        raise UserError(f"{path}: expected the number of folds and of pairs in line 1, got {' '.join(head)!r}")
    folds, each = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    if len(lines) - 1 != 2 * folds * each:
        raise UserError(f"{path}: expected 2 x {folds} x {each} pairs, got {len(lines) - 1}")
    named = [_pair(path, number, words) for number, words in enumerate(lines[1:], start=2)]
    missing = sorted({sample for pair in named for sample in pair if sample not in ids})
    if missing:
        shown = ", ".join(f"{name} {number}" for name, number in missing[:SHOWN])
        raise UserError(f"{path}: {len(missing)} samples are not in the data set: {shown}")
    pairs = torch.tensor([[ids[first], ids[second]] for first, second in named])  # (P, 2)
    return ListedPairs(pairs, torch.arange(len(named)) // (2 * each))


def _pair(path: str | Path, number: int, words: list[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two samples of a line."""
    if len(words) == 3:
        words = [words[0], words[1], words[0], words[2]]
    if len(words) != 4 or not (words[1].strip().isdigit() and words[3].strip().isdigit()):
        raise UserError(
            f"{path}: expected name, number, number or name, number, name, number in line {number}, got {words}"
        )
    return (words[0], int(words[1])), (words[2], int(words[3]))
