"""Any image model of the timm library, with an embedding head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.batch_norm import track_statistics_once
from metric_module.encoders.check_inputs import check_floats
from metric_module.encoders.pretrained import find_path, freeze_parts
from metric_module.errors import UserError
from metric_module.storage.weights import read_tensors


class TimmEncoder(Encoder):
    """A timm model without its classifier, then a linear embedding head.

    Args:
        name: The model's name in timm, for example ``resnet18``.
        embedding_dim: Size D of an embedding.
        normalize: Whether embeddings have length one.
        pretrained: Whether to fetch timm's own weights from its hub.
        weights: A local file of weights instead: a state dict of the timm model, or of the same layers in the
            same order under other names. ``package:name/path`` is a file inside an installed package. It is read
            with ``weights_only=True``, or as safetensors if it is called ``.safetensors``.
        in_channels: Channels of the images.
        frozen: Parts of the backbone that never change, weights and BatchNorm statistics alike, by name: for example
            ``["conv_stem", "bn1", "blocks.0"]``. Early layers are general and the most expensive to train.
        grad_checkpointing: Keep the activations of no more than a stage or a block, and compute them again for the
            gradient, which stays the same: memory for the time of a second forward pass. Not for models in which timm
            does not provide for it.

    Raises:
        UserError: If timm has no such model, both kinds of weights are asked for, the file does not fit, the backbone
            has no part of a name in ``frozen``, or cannot keep fewer activations. On a call, if the inputs are no
            images.
    """

    def __init__(
        self,
        name: str = "resnet18",
        embedding_dim: int = 128,
        normalize: bool = True,
        pretrained: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
        frozen: Sequence[str] = (),
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        import timm  # here, because it takes a second that only its users should pay

        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name[:6]}*")[:8]) or "see timm.list_models()"
            raise UserError(f"encoder.name: timm has no model {name!r}; some that it has: {near}")
        if pretrained and weights is not None:
            raise UserError("encoder: expected pretrained=true or weights=<file>, got both")
        self.embedding_dim = embedding_dim
        self.backbone: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=in_channels)
        if weights is not None:
            load_in_order(self.backbone, find_file(weights))
        self.backbone.reset_classifier(0)  # type: ignore[operator]
        # Twice as fast for convolutions on CPUs, and no slower elsewhere.
        self.backbone.to(memory_format=torch.channels_last)
        self._frozen = freeze_parts(self.backbone, frozen)
        if grad_checkpointing:
            self._checkpoint(name)
        self.head = EmbeddingHead(int(self.backbone.num_features), embedding_dim, normalize)  # type: ignore[arg-type]

    def _checkpoint(self, name: str) -> None:
        with suppress(AttributeError, AssertionError):  # timm's ways to say no
            self.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
        if not any(getattr(part, "grad_checkpointing", False) for part in self.backbone.modules()):
            raise UserError(
                f"encoder.grad_checkpointing: timm has none for {name!r}; expected false, or another model such as "
                "resnet50 or vit_small_patch16_224"
            )
        track_statistics_once(self.backbone)

    @override
    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, C, H, W)``."""
        check_floats(self, inputs, ("B", "C", "H", "W"))
        features: Tensor = self.backbone(inputs.contiguous(memory_format=torch.channels_last))
        embeddings: Tensor = self.head(features)
        return embeddings


def find_file(name: str) -> Path:
    """The file of a path, or of ``package:name/path`` inside an installed package, which is not imported.

    Raises:
        UserError: If the package is not installed, or there is no such file.
    """
    path = find_path("encoder.weights", name)
    if not path.is_file():
        raise UserError(f"encoder.weights: no such file: {path}")
    return path


def load_in_order(model: nn.Module, path: Path) -> None:
    """Load a state dict whose tensors come in the model's order and shapes, whatever their names.

    Names that agree are matched by name. Otherwise every tensor must have the shape of its place in the order.

    Args:
        model: What to load into.
        path: File written by ``torch.save``, or a ``.safetensors`` file, which keeps no order, so its names must agree.

    Raises:
        UserError: If the file is no plain state dict, or does not fit.
    """
    own, tensors = model.state_dict(), _read(path)
    strange = sorted(set(tensors) ^ set(own))
    if strange and path.suffix == ".safetensors":
        where = "has no tensor" if strange[0] in own else "has a tensor that the timm model has not:"
        raise UserError(
            f"encoder.weights: {path} {where} {strange[0]}; weights of a whole encoder go into module.encoder_weights"
        )
    if strange:
        if len(tensors) != len(own):
            raise UserError(f"encoder.weights: expected {len(own)} tensors, {path} has {len(tensors)}")
        tensors = dict(zip(own, tensors.values(), strict=True))
    for name, value in own.items():
        if tensors[name].shape != value.shape:
            raise UserError(
                f"encoder.weights: expected shape {list(value.shape)} for {name}, got {list(tensors[name].shape)}"
            )
    model.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; nothing in it is ever run."""
    if path.suffix == ".safetensors":
        return read_tensors(path, "encoder.weights")[0]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"encoder.weights: {path} is not a file of plain tensors ({type(error).__name__})") from error
    if not isinstance(found, Mapping):
        raise UserError(f"encoder.weights: expected a state dict in {path}, got {type(found).__name__}")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
