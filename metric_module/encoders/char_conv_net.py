"""A convolutional network over the characters of a text, from scratch.

Legend: B texts, T characters of the longest with its two marks, C channels.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from metric_module.batch import is_texts
from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.lengths import encode_by_length
from metric_module.errors import UserError
from metric_module.functional import at_least_float32

PADDING, START, END = range(3)
SPREAD = 2654435761  # Knuth's multiplier: neighbours in Unicode do not meet


class CharConvNet(Encoder):
    """Residual convolutions over the characters, then the mean and the maximum over the text, then a linear head.

    Needs no vocabulary, and no pretraining: a character's code point is hashed to one of ``buckets`` vectors. Texts are
    case-folded and decomposed first, so that é is e and an accent, and a Korean syllable its letters. Padding is masked
    in every layer: what a text becomes does not depend on the others in the batch.

    Args:
        embedding_dim: Size D of an embedding.
        width: Channels C.
        depth: Convolutions.
        kernel: Characters that each of them sees, odd.
        buckets: Vectors that characters share.
        max_length: Most characters of a text, what follows is cut off.
        dropout: Probability that a channel of a character is dropped in training, before each convolution.
        normalize: Whether embeddings have length one.

    Raises:
        UserError: If an argument is out of range; on a call, if the inputs are no list of ``str``.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        width: int = 256,
        depth: int = 4,
        kernel: int = 3,
        buckets: int = 8192,
        max_length: int = 128,
        dropout: float = 0.1,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"width": width, "depth": depth, "max_length": max_length}.items():
            if value < 1:
                raise UserError(f"encoder.{name}: expected an integer >= 1, got {value}")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"encoder.kernel: expected an odd integer >= 1, got {kernel}")
        if buckets <= END + 1:
            raise UserError(f"encoder.buckets: expected an integer > {END + 1}, got {buckets}")
        if not 0 <= dropout < 1:
            raise UserError(f"encoder.dropout: expected 0 <= dropout < 1, got {dropout}")
        self.embedding_dim = embedding_dim
        self.buckets = buckets
        self.max_length = max_length
        self.characters = nn.Embedding(buckets, width, padding_idx=PADDING)
        self.blocks = nn.ModuleList(_Block(width, kernel, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = EmbeddingHead(2 * width, embedding_dim, normalize)

    @override
    def forward(self, inputs: Sequence[str]) -> Tensor:
        """Embeddings ``(B, D)`` of B texts.

        Raises:
            UserError: If they are no list of ``str``.
        """
        if not is_texts(inputs):
            raise UserError(f"CharConvNet: expected a list of str, got {type(inputs).__name__}")
        codes = character_codes(inputs, self.buckets, self.max_length)  # (B, T)
        lengths: list[int] = (codes != PADDING).sum(dim=1).tolist()
        features = encode_by_length(lambda rows: self._features(codes[rows, : lengths[rows[0]]]), lengths)  # (B, 2 C)
        embeddings: Tensor = self.head(features)
        return embeddings

    def _features(self, codes: Tensor) -> Tensor:
        """Features ``(b, 2 C)`` of texts of alike length, ``(b, T)``."""
        codes = codes.to(self.characters.weight.device)
        real = (codes != PADDING)[..., None]  # (b, T, 1)
        states = self.characters(codes)  # (b, T, C)
        for block in self.blocks:
            states = block(states, real)  # (b, T, C)
        states = at_least_float32(self.norm(states))  # (b, T, C)
        mean = states.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)  # (b, C)
        most = states.masked_fill(~real, -torch.inf).amax(dim=1)  # (b, C)
        return torch.cat([mean, most], dim=1)


class _Block(nn.Module):
    """Normalise each character, convolve, and add."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.mix = nn.Linear(width, width)

    @override
    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """States ``(B, T, C)`` to the same shape; ``real`` is bool ``(B, T, 1)``, false for padding."""
        seen = self.dropout(self.norm(states)).masked_fill(~real, 0)  # (B, T, C), zero where there is no text
        found = self.convolution(seen.transpose(1, 2)).transpose(1, 2)  # (B, T, C)
        result: Tensor = states + self.mix(F.gelu(found))
        return result


def character_codes(texts: Sequence[str], buckets: int, max_length: int) -> Tensor:
    """Each text's characters as buckets, between a mark of its start and one of its end, padded to the longest.

    Args:
        texts: B of them.
        buckets: How many there are; the first three are padding, start and end.
        max_length: Most characters of a text, after it is case-folded and decomposed.

    Returns:
        Int64 ``(B, T)``.

    Example:
        >>> codes = character_codes(["Ab", "a", ""], buckets=100, max_length=9)
        >>> codes.shape, (codes[0, 1] == codes[1, 1]).item(), codes[2].tolist()
        (torch.Size([3, 4]), True, [1, 2, 0, 0])
    """
    decomposed = [unicodedata.normalize("NFKD", text.casefold())[:max_length] for text in texts]
    codes = torch.full((len(texts), max(map(len, decomposed), default=0) + 2), PADDING)  # (B, T)
    for row, text in enumerate(decomposed):
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)  # (t,)
        hashed = points * np.uint64(SPREAD) % np.uint64(2**32) % np.uint64(buckets - END - 1) + np.uint64(END + 1)
        codes[row, 1 : len(text) + 1] = torch.from_numpy(hashed.astype(np.int64))
        codes[row, 0], codes[row, len(text) + 1] = START, END
    return codes
