"""The base of every encoder: where a user's own model comes in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import unit


class Encoder(nn.Module):
    """Maps a batch of inputs to embeddings.

    Subclass it, set :attr:`embedding_dim`, and write :meth:`forward`. Whether to normalise is up to you.

    Attributes:
        embedding_dim: Size D of an embedding.

    Example:
        >>> import torch
        >>> class Tiny(Encoder):
        ...     embedding_dim = 8
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, self.embedding_dim)
        ...     def forward(self, inputs):
        ...         return self.layer(inputs)
        >>> Tiny()(torch.zeros(2, 4)).shape
        torch.Size([2, 8])
    """

    embedding_dim: int

    def forward(self, inputs: Any) -> Tensor:
        """Embed a batch.

        Args:
            inputs: What the data set gives, first dimension B.

        Returns:
            Embeddings ``(B, D)``.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(inputs) -> (B, embedding_dim)")


def embed(encoder: nn.Module, inputs: Any) -> Tensor:
    """Call an encoder, and check the shape of what it gives.

    Args:
        encoder: An :class:`Encoder`.
        inputs: What it takes, first dimension B.

    Returns:
        Embeddings ``(B, D)``.

    Raises:
        UserError: If they are no tensor ``(B, embedding_dim)``.
    """
    embeddings = encoder(inputs)
    width = getattr(encoder, "embedding_dim", None)
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or embeddings.shape[1] != width:
        got = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        name = type(encoder).__name__
        raise UserError(f"{name}: expected output of shape [B, {width}] (embedding_dim={width}), got {got}")
    return embeddings


class EmbeddingHead(nn.Module):
    """The last layer of a shipped encoder: linear, then to unit length unless ``normalize`` is off.

    Args:
        features: Size of what comes in.
        embedding_dim: Size of what goes out, at least 1.
        normalize: Whether to scale each embedding to length one.

    Raises:
        UserError: If ``embedding_dim`` is below 1.
    """

    def __init__(self, features: int, embedding_dim: int, normalize: bool) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise UserError(f"encoder.embedding_dim: expected an integer >= 1, got {embedding_dim}")
        self.linear = nn.Linear(features, embedding_dim)
        self.normalize = normalize

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of features ``(B, F)``."""
        embeddings: Tensor = self.linear(features)
        return unit(embeddings) if self.normalize else embeddings
