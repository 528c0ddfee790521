"""Source of texts.

Legend: N = texts, B = texts in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed
from datamodules.sampling.dataset import Source
from datamodules.sources.duplicates import Hashes
from datamodules.sources.paths import Paths
from metric_module.preprocessing import TextInput

LONGEST = 200


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
        """List empty texts (white space only).

        Args:
            splits: Ids of the samples in each split, int64.
        """
        rows = torch.cat(list(splits.values())).tolist()
        return listed("texts are empty", [f"row {row}" for row in rows if not self.texts[row].strip()])

    @override
    def contents(self) -> Hashes:
        """Hash every text."""
        return np.fromiter((hash(self.texts[row]) for row in range(len(self.texts))), np.int64, len(self.texts))

    @override
    def name_of(self, row: int) -> str:
        """Return the row and the beginning of a text."""
        return f"row {row} {cut(self.texts[row], 60)!r}"


def cut(text: str, most: int = LONGEST) -> str:
    """Cut a long text to its beginning and an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
