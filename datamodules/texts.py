"""Texts by id.

Legend: N texts, B of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from PIL.Image import Image
from torch import Tensor
from typing_extensions import override

from datamodules.files import Paths
from datamodules.samples import Source, listed


class Texts(Source):
    """Texts in memory, for a text encoder.

    Args:
        texts: One for each sample, in order of id.

    Example:
        >>> import torch
        >>> Texts(["grey", "gray", "red"])(torch.tensor([2, 0]))
        ['red', 'grey']
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = Paths(texts)  # two arrays, which worker processes share

    @override
    def __call__(self, ids: Tensor) -> list[str]:
        """The texts of int64 ids ``(B,)``."""
        return [self.texts[row] for row in ids.tolist()]

    @override
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """The texts."""
        return [self.texts[row] for row in ids]

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Texts of nothing but blanks, and texts that are in two splits."""
        empty: list[str] = []
        places: dict[str, dict[str, int]] = {}
        for split, ids in splits.items():
            for row in ids.tolist():
                text = self.texts[row]
                places.setdefault(text, {}).setdefault(split, row)
                empty += [] if text.strip() else [str(row)]
        twice = [
            f"{text!r} ({', '.join(f'{split} {row}' for split, row in found.items())})"
            for text, found in places.items()
            if len(found) > 1 and text.strip()
        ]
        return [*listed("texts that are empty, by id", empty), *listed("texts in two splits, with an id", twice)]
