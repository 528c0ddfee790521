"""Inputs of an encoder as embeddings of themselves: figures that a training has to exceed.

Shapes: N = samples of all processes, B = samples of a batch, C = channels, H x W = pixels, F = numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_module.batch import is_texts
from metric_module.distributed import gather_objects, sum_over_ranks
from metric_module.errors import NotComputableError

SIDE, LEAST_SIDE = 32, 8
"""Largest and smallest side of an image that is compared, in pixels."""

MOST_NUMBERS = 1 << 26
"""Most numbers of all samples together, 256 MiB."""

MOST_PRODUCTS = 1 << 40
"""Most products in the comparison of all pairs, some twenty seconds on two cores."""

NGRAMS = (1, 3)


class RawInputs:
    """Collect the inputs of a set batch by batch, and return them as embeddings for the Euclidean distance.

    Images are scaled down to at most 32 x 32 pixels, and further where the set is large. Other floating point inputs of
    one fixed shape are taken as they are. Texts become TF-IDF vectors of their character n-grams within words (Salton
    and Buckley 1988), of length 1, if scikit-learn is installed.

    Args:
        samples: Number of samples of the set, N.

    Attributes:
        absent: Why these inputs cannot be compared; None if they can.
    """

    def __init__(self, samples: int) -> None:
        self.absent: str | None = None
        self._most = min(MOST_NUMBERS // max(1, samples), MOST_PRODUCTS // max(1, samples) ** 2)
        self._batches: list[Any] = []

    def add(self, inputs: Any, count: int) -> None:
        """Add a batch.

        Args:
            inputs: What the encoder gets, such as ``(B, C, H, W)`` or a list of texts.
            count: Number of embeddings that the encoder returned for them.
        """
        if self.absent is not None:
            return
        try:
            self._batches.append(self._rows(inputs, count))
        except NotComputableError as reason:
            self.absent = str(reason)
            self._batches.clear()

    def embeddings(self, device: torch.device) -> list[Tensor]:
        """Return float32 ``(B, F)`` for each batch of this process; every process must call it.

        Args:
            device: Device of the result.

        Raises:
            NotComputableError: If the inputs of any process cannot be compared.
        """
        texts = any(isinstance(batch, list) for batch in self._batches)
        absent, with_texts = sum_over_ranks(
            torch.tensor([self.absent is not None, texts], device=device).int()
        ).tolist()
        if absent:
            raise NotComputableError(self.absent or "another process cannot compare its inputs")
        rows = tfidf(self._batches, self._most) if with_texts else self._batches
        return [batch.to(device) for batch in rows]

    def _rows(self, inputs: Any, count: int) -> Tensor | list[str]:
        """Return a batch of inputs as texts, or as rows ``(B, F)``."""
        if is_texts(inputs):
            if find_spec("sklearn") is None:
                raise NotComputableError("TF-IDF needs pip install scikit-learn")
            return list(inputs)
        if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.is_floating_point():
            raise NotComputableError("the inputs are not numbers of one fixed shape")
        if len(inputs) != count:
            raise NotComputableError("an input has several embeddings")
        found = scaled_down(inputs, self._most) if inputs.ndim == 4 else inputs
        rows = found.flatten(1).float().cpu()  # (B, F)
        if rows.shape[1] > self._most:
            raise NotComputableError("the set is too large")
        if self._batches and self._batches[0].shape[1] != rows.shape[1]:
            raise NotComputableError("the inputs have different shapes")
        return rows


def scaled_down(images: Tensor, most: int) -> Tensor:
    """Average the pixels of images so that the longer side has at most 32 pixels and an image at most ``most`` numbers.

    Args:
        images: ``(B, C, H, W)``.
        most: Most numbers of an image.

    Raises:
        NotComputableError: If that leaves a side of fewer than 8 pixels.

    Example:
        >>> scaled_down(torch.ones(1, 3, 128, 96), most=1 << 20).shape
        torch.Size([1, 3, 32, 24])
    """
    channels, *sides = images.shape[1:]
    side = min(SIDE, isqrt(most // channels))
    if side < LEAST_SIDE:
        raise NotComputableError("the set is too large")
    if max(sides) <= side:
        return images
    return F.interpolate(images.float(), [max(1, length * side // max(sides)) for length in sides], mode="area")


def tfidf(batches: Sequence[Sequence[str]], most: int) -> list[Tensor]:
    """Compute TF-IDF vectors of the character n-grams within words, over the texts of all processes.

    Args:
        batches: Texts of this process.
        most: Most numbers of a vector: the most frequent n-grams are kept.

    Returns:
        Float32 ``(B, F)`` of length 1 for each batch.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    own = [text for batch in batches for text in batch]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=NGRAMS, sublinear_tf=True, max_features=most)
    try:
        vectorizer.fit([text for shard in gather_objects(own) for text in shard])
    except ValueError:  # no text has a character
        raise NotComputableError("the texts have no characters") from None
    return [torch.from_numpy(vectorizer.transform(batch).toarray()).float() for batch in batches]
