"""Base class of every encoder, and the linear head of those that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import unit


class Encoder(nn.Module):
    """Maps a batch of inputs to embeddings.

    Subclass it, set :attr:`embedding_dim`, and write :meth:`forward`. Whether to normalise is up to you.

    Attributes:
        embedding_dim: Size D of an embedding.
        initial_weights: Arguments that only choose the weights to start from, with values that choose none. Weights of
            a training are loaded into an encoder that is built with these.

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
    initial_weights: ClassVar[Mapping[str, object]] = {}
    _frozen: Sequence[nn.Module] = ()  # stay in evaluation mode when the encoder is switched to training

    def forward(self, inputs: Any) -> Tensor:
        """Embed a batch.

        Args:
            inputs: Inputs as the data set gives them, first dimension B.

        Returns:
            Embeddings ``(B, D)``.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(inputs) -> (B, embedding_dim)")

    @override
    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; frozen modules stay in evaluation."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def embed(encoder: nn.Module, inputs: Any) -> Tensor:
    """Call an encoder, and check the shape of its output.

    Args:
        encoder: An :class:`Encoder`.
        inputs: Inputs of the encoder, first dimension B.

    Returns:
        Embeddings ``(B, D)``.

    Raises:
        UserError: If the output is not a tensor ``(B, embedding_dim)``.
    """
    embeddings = encoder(inputs)
    width = getattr(encoder, "embedding_dim", None)
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or embeddings.shape[1] != width:
        got = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        name = type(encoder).__name__
        if width is None:
            example = embeddings.shape[1] if isinstance(embeddings, Tensor) and embeddings.ndim == 2 else "..."
            raise UserError(f"{name}: expected an attribute embedding_dim; set embedding_dim = {example} in the class")
        raise UserError(f"{name}: expected output of shape [B, {width}] (embedding_dim={width}), got {got}")
    return embeddings


class EmbeddingHead(nn.Module):
    """Last layer of a shipped encoder: linear, then scaling to unit length unless ``normalize`` is off.

    Args:
        features: Size F of the features.
        embedding_dim: Size D of an embedding, at least 1.
        normalize: Whether to scale each embedding to length one.

    Raises:
        UserError: If ``embedding_dim`` is below 1.
    """

    def __init__(self, features: int, embedding_dim: int, normalize: bool) -> None:
        super().__init__()
        check_positive({"embedding_dim": embedding_dim})
        self.linear = nn.Linear(features, embedding_dim)
        self.normalize = normalize

    if TYPE_CHECKING:

        def __call__(self, features: Tensor) -> Tensor: ...  # noqa: D102  # so that calls are typed

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of features ``(B, F)``, which may be wider than the weights, as pooling leaves them."""
        embeddings: Tensor = self.linear(features.to(self.linear.weight.dtype))
        return unit(embeddings) if self.normalize else embeddings


def check_positive(settings: Mapping[str, int]) -> None:
    """Accept integer settings of an encoder, by name, that are at least 1.

    Raises:
        UserError: Naming the first that is below 1.
    """
    for name, value in settings.items():
        if value < 1:
            raise UserError(f"encoder.{name}: expected an integer >= 1, got {value}")


def check_odd(name: str, value: int) -> None:
    """Accept a setting of an encoder that is a positive odd integer.

    Raises:
        UserError: If it is anything else.
    """
    if value < 1 or value % 2 == 0:
        raise UserError(f"encoder.{name}: expected an odd integer >= 1, got {value}")
