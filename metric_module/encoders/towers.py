"""Encoder of several towers, one for each kind of input, into one embedding space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import Encoder, embed
from metric_module.encoders.check_inputs import describe
from metric_module.errors import UserError


class MultiEncoder(Encoder):
    """Towers by name, such as users and items, or images and texts. The key of the input selects the tower.

    Args:
        encoders: Encoders by name, all with the same ``embedding_dim``.

    Raises:
        UserError: If there is no encoder, or they differ in ``embedding_dim``; on a call, if the input is not a dict
            whose only key is the name of an encoder.

    Example:
        >>> import torch
        >>> from metric_module.encoders import MLP, LookupEncoder
        >>> towers = MultiEncoder({"user": LookupEncoder(9, 4), "item": MLP(in_features=3, embedding_dim=4)})
        >>> towers({"user": torch.tensor([8, 0])}).shape
        torch.Size([2, 4])
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        widths = {name: getattr(encoder, "embedding_dim", None) for name, encoder in encoders.items()}
        if not widths:
            raise UserError("encoder.encoders: expected at least one encoder by name, got none")
        if len(set(widths.values())) > 1:
            got = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise UserError(f"encoder.encoders: expected one embedding_dim for all, got {got}")
        self.embedding_dim = next(iter(encoders.values())).embedding_dim
        self.encoders = nn.ModuleDict(encoders)

    @override
    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Embeddings ``(B, D)`` of ``{name: inputs of this tower}``."""
        names = ", ".join(self.encoders)
        if not isinstance(inputs, Mapping) or len(inputs) != 1:
            raise UserError(f"MultiEncoder: expected a dict with one key of {names}, got {describe(inputs)}")
        ((name, own),) = inputs.items()
        if name not in self.encoders:
            raise UserError(f"MultiEncoder: expected a key of {names}, got {name}")
        try:
            return embed(self.encoders[name], own)
        except UserError as error:
            if not str(error).startswith("encoder."):
                raise
            raise UserError(f"encoder.encoders.{name}.{str(error).removeprefix('encoder.')}") from error
