"""Convolutional network over the characters of a text, trained from scratch.

Legend: B texts, b texts of similar length, T characters of the longest with its start and end marks, C channels,
D embedding size.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from metric_module.distributed import is_sharded
from metric_module.encoders.base import EmbeddingHead, Encoder, check_odd, check_positive
from metric_module.encoders.check_inputs import check_texts
from metric_module.encoders.lengths import encode_by_length
from metric_module.errors import UserError
from metric_module.functional import at_least_float32

PADDING, START, END = range(3)
MULTIPLIER = 2654435761  # Knuth's multiplicative hash: neighbours in Unicode get different buckets


class CharConvNet(Encoder):
    """Residual convolutions over the characters, then the mean and the maximum over the text, then a linear head.

    Needs neither a vocabulary nor pretraining: the code point of a character is hashed to one of ``buckets`` vectors.
    Texts are case-folded and decomposed first, so that é becomes e and an accent, and a Korean syllable its letters.
    Padding is masked in every layer, so that the embedding of a text does not depend on the others in the batch.

    Args:
        embedding_dim: Size D of an embedding.
        width: Channels C.
        depth: Number of convolutions.
        kernel: Width of a convolution in characters, odd.
        buckets: Number of vectors that characters share.
        max_length: Maximum number of characters of a text; the rest is cut off.
        dropout: Probability with which a channel of a character is dropped in training, before each convolution.
        normalize: Whether embeddings have length one.

    Raises:
        UserError: If an argument is out of range; on a call, if the inputs are not a list of ``str``.
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
        check_positive({"width": width, "depth": depth, "max_length": max_length})
        check_odd("kernel", kernel)
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
        """Embeddings ``(B, D)`` of B texts."""
        check_texts(self, inputs)
        codes = character_codes(inputs, self.buckets, self.max_length)  # (B, T)
        lengths: list[int] = (codes != PADDING).sum(dim=1).tolist()
        features = encode_by_length(  # (B, 2 C)
            lambda rows: self._features(codes[rows, : lengths[rows[0]]]), lengths, together=is_sharded(self)
        )
        return self.head(features)

    def _features(self, codes: Tensor) -> Tensor:
        """Features ``(b, 2 C)`` of the codes ``(b, T)`` of texts of similar length."""
        codes = codes.to(self.characters.weight.device)
        real = (codes != PADDING)[..., None]  # (b, T, 1)
        states = self.characters(codes)  # (b, T, C)
        for block in self.blocks:
            states = block(states, real)  # (b, T, C)
        states = at_least_float32(self.norm(states))  # (b, T, C)
        mean = states.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)  # (b, C)
        largest = states.masked_fill(~real, -torch.inf).amax(dim=1)  # (b, C)
        return torch.cat([mean, largest], dim=1)


class _Block(nn.Module):
    """Residual block: layer normalisation of each character, dropout, convolution, GELU, and a linear layer."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.mix = nn.Linear(width, width)

    @override
    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """States ``(b, T, C)`` to the same shape; ``real`` is bool ``(b, T, 1)``, false for padding."""
        inputs = self.dropout(self.norm(states)).masked_fill(~real, 0)  # (b, T, C)
        outputs = self.convolution(inputs.transpose(1, 2)).transpose(1, 2)  # (b, T, C)
        result: Tensor = states + self.mix(F.gelu(outputs))
        return result


def character_codes(texts: Sequence[str], buckets: int, max_length: int) -> Tensor:
    """Hash the characters of texts to buckets, add start and end marks, and pad to the longest text.

    Args:
        texts: The texts, B.
        buckets: Number of buckets; the first three are padding, start and end.
        max_length: Maximum number of characters of a text after case-folding and decomposition.

    Returns:
        Codes, int64 ``(B, T)``.

    Example:
        >>> codes = character_codes(["Ab", "a", ""], buckets=100, max_length=9)
        >>> codes.shape, (codes[0, 1] == codes[1, 1]).item(), codes[2].tolist()
        (torch.Size([3, 4]), True, [1, 2, 0, 0])
    """
    decomposed = [unicodedata.normalize("NFKD", text.casefold())[:max_length] for text in texts]
    codes = torch.full((len(texts), max(map(len, decomposed), default=0) + 2), PADDING)  # (B, T)
    for row, text in enumerate(decomposed):
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)  # (t,)
        hashed = points * np.uint64(MULTIPLIER) % np.uint64(2**32) % np.uint64(buckets - END - 1) + np.uint64(END + 1)
        codes[row, 1 : len(text) + 1] = torch.from_numpy(hashed.astype(np.int64))
        codes[row, 0], codes[row, len(text) + 1] = START, END
    return codes
