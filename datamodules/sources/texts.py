"""Source of texts.

Legend: N = texts, n = texts in the splits, B = texts in a batch, g = groups of equal hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed
from datamodules.sampling.dataset import Source
from datamodules.sources.paths import Paths
from metric_module.preprocessing import TextInput

LONGEST = 200
CHUNK = 1 << 16


class Texts(Source):
    """Texts by id, as lists of strings for text encoders.

    Args:
        texts: Text of each sample, N; a list or tuple is stored in two arrays, which worker processes share.

    Example:
        >>> Texts(["eins", "zwei"])(torch.tensor([1, 0]))
        ['zwei', 'eins']
    """

    preprocessing = TextInput()

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = Paths(texts) if isinstance(texts, list | tuple) else texts

    @override
    def __call__(self, ids: Tensor) -> list[str]:
        """Return the texts of int64 ids ``(B,)``."""
        return [self.texts[row] for row in ids.tolist()]

    @override
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """Return the texts, cut after 200 characters.

        Args:
            ids: Samples.
        """
        return [cut(self.texts[row]) for row in ids]

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """List empty texts (white space only), and equal texts in two splits.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        rows = torch.cat(list(splits.values()))  # (n,)
        hashes, empty = self._hash(rows)
        order = np.argsort(hashes, kind="stable")  # (n,), puts equal texts next to each other
        split = np.repeat(np.arange(len(splits), dtype=np.int8), [len(ids) for ids in splits.values()])[order]  # (n,)
        starts = np.flatnonzero(
            np.r_[True, np.diff(hashes[order]) != 0]
        )  # (g,), where each group of equal hashes starts
        mixed = np.minimum.reduceat(split, starts) != np.maximum.reduceat(split, starts)  # (g,)
        ends = np.r_[starts[1:], len(order)]
        names, shared = list(splits), dict[str, set[int]]()
        for start, end in zip(starts[mixed].tolist(), ends[mixed].tolist(), strict=True):
            for place in range(start, end):
                shared.setdefault(self.texts[int(rows[order[place]])], set()).add(int(split[place]))
        twice = [
            f"{cut(text, 60)!r} ({', '.join(names[number] for number in sorted(found))})"
            for text, found in shared.items()
            if len(found) > 1
        ]
        return [*listed("texts are empty", empty), *listed("texts are in two splits", twice)]

    def _hash(self, rows: Tensor) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Hash each text, int64 ``(n,)``, and name the empty ones, reading every text once."""
        hashes = np.empty(len(rows), dtype=np.int64)
        empty = []
        for start in range(0, len(rows), CHUNK):
            for place, row in enumerate(rows[start : start + CHUNK].tolist(), start=start):
                text = self.texts[row]
                hashes[place] = hash(text)
                if not text.strip():
                    empty.append(f"row {row}")
        return hashes, empty


def cut(text: str, most: int = LONGEST) -> str:
    """Cut a long text to its beginning and an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
