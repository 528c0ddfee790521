"""Encoder for images from any model of the timm library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.batch_norm import track_statistics_once
from metric_module.encoders.check_inputs import check_floats
from metric_module.encoders.conv_net import mean_pool
from metric_module.encoders.pretrained import find_path, freeze
from metric_module.errors import UserError
from metric_module.functional import unit
from metric_module.storage.weights import read_tensors


class TimmEncoder(Encoder):
    """A timm model without its classifier, then a linear embedding head.

    Args:
        name: Name of the model in timm, for example ``resnet18``.
        embedding_dim: Size D of an embedding.
        normalize: Whether embeddings have length one.
        pretrained: Whether to download timm's own weights.
        weights: Local file of weights instead: a state dict of the timm model, or of the same layers in the same order
            under other names. ``package:name/path`` is a file inside an installed package. Files are read with
            ``weights_only=True``, or as safetensors if the name ends in ``.safetensors``.
        in_channels: Channels C of the images.
        frozen: Names of modules of the backbone whose weights and BatchNorm statistics do not change, for example
            ``["conv_stem", "bn1", "blocks.0"]``. Early layers are general and the most expensive to train.
        grad_checkpointing: Whether to keep only the activations between stages or blocks, and to recompute the others
            for the backward pass, at the cost of a second forward pass. Gradients do not change. Only for models for
            which timm supports it.
        pool_stages: Whether the head also gets the features of every stage, averaged over the image, and not only those
            of the last layer. Colours and strokes, which early stages detect, tell drawings and products apart.

    Raises:
        UserError: If timm has no such model or cannot build it, both kinds of weights are requested, timm's own cannot
            be downloaded, the file does not fit, the backbone has no module of a name in ``frozen``, or timm does not
            support ``grad_checkpointing`` for it. On a call, if the inputs are not images with C channels, or of a size
            that the model does not take.
    """

    initial_weights = {"pretrained": False, "weights": None}  # noqa: RUF012  # as declared in the base class

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
        pool_stages: bool = False,
    ) -> None:
        super().__init__()
        if pretrained and weights is not None:
            raise UserError("encoder: expected pretrained=true or weights=<file>, got both")
        self.embedding_dim = embedding_dim
        self.in_channels = in_channels
        self.name = name
        self.backbone = create_backbone(name, pretrained, in_channels)
        if weights is not None:
            load_in_order(self.backbone, find_path("encoder.weights", weights))
        self.backbone.reset_classifier(0)  # type: ignore[operator]
        # Twice as fast for convolutions on CPUs, and no slower elsewhere.
        self.backbone.to(memory_format=torch.channels_last)
        self._frozen = freeze(self.backbone, frozen)
        if grad_checkpointing:
            self._checkpoint(name)
        # Many models have a layer between the pooling and the classifier, as wide as head_hidden_size.
        width: Any = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.pool_stages = pool_stages
        found: Any = self.backbone.feature_info if pool_stages else []
        stages = [int(stage["num_chs"]) for stage in found]
        self.head = EmbeddingHead(int(width) + sum(stages), embedding_dim, normalize)

    def _checkpoint(self, name: str) -> None:
        with suppress(AttributeError, AssertionError):  # raised by models that do not support it
            self.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
        if not any(getattr(module, "grad_checkpointing", False) for module in self.backbone.modules()):
            raise UserError(
                f"encoder.grad_checkpointing: timm does not support it for {name!r}; expected false, or another model "
                "such as resnet50 or vit_small_patch16_224"
            )
        track_statistics_once(self.backbone)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, C, H, W)``."""
        check_floats(self, inputs, ("B", self.in_channels, "H", "W"), f"encoder.in_channels={self.in_channels}")
        try:
            images = inputs.contiguous(memory_format=torch.channels_last)
            features: Tensor = self._pool_all(images) if self.pool_stages else self.backbone(images)  # (B, F)
        except Exception as error:  # models raise many kinds
            self._explain_size(inputs.shape, error)
            raise
        return self.head(features)

    def _pool_all(self, images: Tensor) -> Tensor:
        """Features ``(B, F)`` of the last layer and of every stage, each stage scaled to the same length."""
        backbone: Any = self.backbone
        last, stages = backbone.forward_intermediates(images)
        pooled = [backbone.forward_head(last), *(mean_pool(stage) for stage in stages)]
        features = torch.cat([unit(part) for part in pooled], dim=1)  # (B, F)
        return features * math.sqrt(features.shape[1] / len(pooled))

    def _explain_size(self, shape: torch.Size, error: Exception) -> None:
        """Raise an error that names the model's own image size if the model takes it, and not that of ``shape``."""
        settings: Any = getattr(self.backbone, "pretrained_cfg", {})
        own = tuple(settings.get("input_size", ())[1:])
        if own and takes(self.backbone, (*shape[:2], *own)) and not takes(self.backbone, shape):
            expected, got = (f"{height} x {width}" for height, width in (own, shape[2:]))
            raise UserError(
                f"encoder.name: {self.name} takes no images of {got} pixels; it was made for {expected}: "
                f"give datamodule.image_size={max(own)}"
            ) from error


def create_backbone(name: str, pretrained: bool, in_channels: int) -> nn.Module:
    """Build a model of timm with its classifier.

    Args:
        name: Name of the model in timm.
        pretrained: Whether to download timm's own weights.
        in_channels: Channels of the images.

    Raises:
        UserError: If timm has no such model, the download fails, or the model cannot be built.
    """
    import timm  # here, because it takes a second that only its users should pay

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:8]) or "see timm.list_models()"
        raise UserError(f"encoder.name: timm has no model {name!r}; similar names: {near}")
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=in_channels)
    except Exception as error:  # timm, the network and the hub raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if pretrained and not isinstance(error, RuntimeError):  # with a RuntimeError timm names a mistake in the name
            raise UserError(
                f"encoder.pretrained: the weights of {name} cannot be downloaded ({reason.split('. ')[0]}); "
                "give encoder.weights=<file> for a file of yours, or encoder.pretrained=false"
            ) from error
        raise UserError(f"encoder.name: timm cannot build {name}: {reason}") from error
    return model


def takes(model: nn.Module, shape: Sequence[int]) -> bool:
    """Return whether a model accepts inputs of a shape, computed without memory on the meta device."""
    tensors = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    kind = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    try:
        with torch.no_grad():
            functional_call(model, tensors, (torch.empty(*shape, dtype=kind, device="meta"),))
    except Exception:  # models raise many kinds
        return False
    return True


def load_in_order(model: nn.Module, path: Path) -> None:
    """Load a state dict by the names of its tensors, or by their order if the names differ.

    Args:
        model: The model to load into.
        path: A file written by ``torch.save``, or a ``.safetensors`` file, which keeps no order, so names must agree.

    Raises:
        UserError: If there is no such file, it is not a plain state dict, or its tensors do not fit.
    """
    own, tensors = model.state_dict(), _read(path)
    if set(tensors) != set(own) and path.suffix != ".safetensors":
        if len(tensors) != len(own):
            raise UserError(f"encoder.weights: expected {len(own)} tensors, {path} has {len(tensors)}")
        tensors = dict(zip(own, tensors.values(), strict=True))
    for name in own | tensors:
        expected, got = (list(state[name].shape) if name in state else "no such tensor" for state in (own, tensors))
        if expected != got:
            raise UserError(
                f"encoder.weights: {path} does not fit, first at {name}: expected {expected}, got {got}; "
                "weights of a whole encoder go into module.encoder_weights"
            )
    model.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file without running code in it."""
    if path.suffix == ".safetensors":
        return read_tensors(path, "encoder.weights")[0]
    if not path.is_file():
        raise UserError(f"encoder.weights: no such file: {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"encoder.weights: {path} is not a file of plain tensors ({type(error).__name__})") from error
    if not isinstance(state, Mapping):
        raise UserError(f"encoder.weights: expected a state dict in {path}, got {type(state).__name__}")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
