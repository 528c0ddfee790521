"""Multi-layer perceptron over flattened inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import check_floats
from metric_module.errors import UserError


class MLP(Encoder):
    """Fully connected layers with batch normalisation, for feature vectors or small images.

    Args:
        in_features: Size F of a flattened input; 3,072 for an image of 3 channels and 32 x 32 pixels.
        embedding_dim: Size D of an embedding.
        hidden: Width of each hidden layer; may be empty.
        normalize: Whether embeddings have length one.

    Raises:
        UserError: If ``embedding_dim`` is below 1; on a call, if the inputs are not a float tensor or have another
            size.
    """

    def __init__(
        self,
        in_features: int,
        embedding_dim: int = 128,
        hidden: Sequence[int] = (512, 512),
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = []
        widths = [in_features, *hidden]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = EmbeddingHead(widths[-1], embedding_dim, normalize)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of inputs ``(B, ...)``, which are flattened."""
        check_floats(self, inputs, ("B", "..."))
        flat = inputs.flatten(1)  # (B, F)
        if flat.shape[1] != self.in_features:
            raise UserError(
                f"encoder.in_features: expected {flat.shape[1]} for inputs of shape {list(inputs.shape[1:])}, "
                f"got {self.in_features}"
            )
        return self.head(self.body(flat))
