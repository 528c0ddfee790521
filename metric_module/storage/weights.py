"""Weights of an encoder as a safetensors file, which holds tensors alone and which any framework reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from metric_module.errors import UserError
from metric_module.storage.atomic import beside
from metric_module.version import __version__

NAME = "encoder.safetensors"


def save_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Write the weights and buffers of an encoder atomically.

    The metadata of the file are ``encoder`` (name of the class), ``embedding_dim`` and ``version`` of this project.

    Args:
        encoder: An :class:`metric_module.Encoder`.
        path: The file; its folder is created.

    Raises:
        UserError: If the encoder's state has values that are no tensors, or the file cannot be written.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> from metric_module.encoders import MLP
        >>> first, second = MLP(in_features=3, embedding_dim=2), MLP(in_features=3, embedding_dim=2)
        >>> with TemporaryDirectory() as folder:
        ...     save_encoder(first, f"{folder}/mlp.safetensors")
        ...     load_encoder(second, f"{folder}/mlp.safetensors")
        >>> torch.equal(first.head.linear.weight, second.head.linear.weight)
        True
    """
    file = Path(path)
    tensors = _apart(encoder.state_dict(), file)
    about = {
        "format": "pt",
        "encoder": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "embedding_dim": str(getattr(encoder, "embedding_dim", "")),
        "version": __version__,
    }
    try:
        with beside(file) as part:
            part.touch()
            mode = part.stat().st_mode  # save_file would leave the file to its owner alone
            save_file(tensors, part, about)
            part.chmod(mode)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a type of numbers that the format does not have
        raise UserError(f"{NAME}: cannot write {file} ({error})") from error


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Load all weights that :func:`save_encoder` wrote; nothing in the file is executed.

    Args:
        encoder: An encoder of the same class, built with the same arguments.
        path: The file.

    Raises:
        UserError: If there is no such file, it is no safetensors file, or a tensor does not fit; the first one is
            named.
    """
    tensors, about = read_tensors(path, "module.encoder_weights")
    own = encoder.state_dict()
    origin = f"; the file is of {about['encoder']!r}" if "encoder" in about else ""
    for name in own | tensors:
        expected, got = (_shape(state, name) for state in (own, tensors))
        if expected != got:
            raise UserError(
                f"module.encoder_weights: {path} does not fit {type(encoder).__name__}, first at {name}: expected "
                f"{expected}, got {got}{origin}"
            )
    encoder.load_state_dict(tensors)


def read_tensors(path: str | Path, setting: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors by name, and the metadata, of a safetensors file.

    Args:
        path: The file.
        setting: The configuration key that names the file, for the message.

    Raises:
        UserError: If there is no such file, or it is another kind of file.
    """
    if not Path(path).is_file():
        raise UserError(f"{setting}: no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{setting}: {path} is not a safetensors file ({error})") from error


def _apart(state: Mapping[str, object], file: Path) -> dict[str, Tensor]:
    """Copy the tensors of a state to the CPU so that no two share memory."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{NAME}: cannot write {file} (expected tensors, {name} is a {type(value).__name__})")
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return f"shape {list(state[name].shape)}" if name in state else "no such tensor"
