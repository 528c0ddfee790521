"""Weights of an encoder as a safetensors file, which holds tensors alone and which any framework reads."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from metric_module.errors import UserError
from metric_module.preprocessing import Preprocessing, from_json
from metric_module.storage.atomic import beside
from metric_module.version import __version__

NAME = "encoder.safetensors"
T = TypeVar("T")
_IN_USE = "_loaded_for_use"


class Usage(NamedTuple):
    """How an encoder is used, each None if its file does not say.

    Attributes:
        preprocessing: How one item becomes an input.
        distance: Name of the class of the distance between embeddings.
        threshold: Distance up to which two samples count as the same.
    """

    preprocessing: Preprocessing | None
    distance: str | None
    threshold: float | None


def save_encoder(
    encoder: nn.Module,
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    distance: str | None = None,
    threshold: float | None = None,
) -> None:
    """Write the weights and buffers of an encoder atomically.

    The metadata of the file are ``encoder`` (name of the class), ``embedding_dim``, ``version`` of this project and, if
    given, ``preprocessing`` as JSON, ``distance`` and ``threshold``. Names are those of the encoder without
    ``torch.compile``.

    Args:
        encoder: An :class:`metric_module.Encoder`.
        path: The file; its folder is created.
        preprocessing: How one item becomes an input of this encoder.
        distance: Name of the class of the distance between embeddings.
        threshold: Distance up to which two samples count as the same.

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
    kind = type(getattr(encoder, "_orig_mod", encoder))
    about = {
        "format": "pt",
        "encoder": f"{kind.__module__}.{kind.__qualname__}",
        "embedding_dim": str(getattr(encoder, "embedding_dim", "")),
        "version": __version__,
    }
    usage = {
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "distance": distance,
        "threshold": None if threshold is None else repr(threshold),
    }
    known = {name: text for name, text in usage.items() if text is not None}
    save_tensors(encoder, Path(path), about | known)


def save_tensors(module: nn.Module, file: Path, about: dict[str, str]) -> None:
    """Write the weights and buffers of a module atomically, by their names without ``torch.compile``.

    Args:
        module: The module.
        file: The file; its folder is created.
        about: Metadata of the file.

    Raises:
        UserError: If the state has values that are no tensors, or the file cannot be written.
    """
    tensors = _apart(without_compile(module.state_dict()), file)
    try:
        with beside(file) as part:
            part.touch()
            mode = part.stat().st_mode  # save_file would leave the file to its owner alone
            save_file(tensors, part, about)
            part.chmod(mode)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a type of numbers that the format does not have
        raise UserError(f"{file.name}: cannot write {file} ({error})") from error


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Load all weights that :func:`save_encoder` wrote, and switch to evaluation mode; nothing in the file is executed.

    A later fit of a :class:`metric_module.TripletModule` switches back to training mode. In a training loop of your
    own, call ``encoder.train()``.

    Args:
        encoder: An encoder of the same class, built with the same arguments, compiled or not.
        path: The file.

    Raises:
        UserError: If there is no such file, it is no safetensors file, or a tensor does not fit; the first one is
            named.
    """
    tensors, about = read_tensors(path, "module.encoder_weights")
    origin = f"; the file is of {about['encoder']!r}" if "encoder" in about else ""
    load_tensors(encoder, tensors, f"module.encoder_weights: {path}", origin)
    for_use(encoder)


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str, origin: str = "") -> None:
    """Load all tensors of a module by name, compiled or not.

    Args:
        module: The module to change.
        tensors: Its state.
        where: Where the state comes from, for the message.
        origin: What the state belongs to, for the end of the message.

    Raises:
        UserError: If a tensor does not fit, is missing or unknown; the first one is named.
    """
    tensors = without_compile(tensors)
    names = {plain_name(name): name for name in module.state_dict()}
    own = without_compile(module.state_dict())
    for name in own | tensors:
        expected, got = (_shape(state, name) for state in (own, tensors))
        if expected != got:
            raise UserError(
                f"{where} does not fit {type(module).__name__}, first at {name}: expected {expected}, got {got}{origin}"
            )
    module.load_state_dict({names[name]: value for name, value in tensors.items()})


def read_usage(path: str | Path) -> Usage:
    """Read how the encoder whose weights a file holds is used.

    Args:
        path: The file.

    Raises:
        UserError: If the file cannot be read, its preprocessing is not one of this project, or its threshold is no
            finite number.
    """
    with _opened(path, "module.encoder_weights") as file:
        about = file.metadata() or {}
    preprocessing = from_json(about["preprocessing"]) if "preprocessing" in about else None
    try:
        threshold = float(about["threshold"]) if "threshold" in about else None
    except ValueError:
        threshold = math.nan
    if threshold is not None and not math.isfinite(threshold):
        raise UserError(f"module.encoder_weights: {path}: expected a number as threshold, got {about['threshold']!r}")
    return Usage(preprocessing, about.get("distance"), threshold)


def fingerprint(module: nn.Module) -> str:
    """Hash the names and the bits of all tensors of a module, to tell whose embeddings a file has.

    Args:
        module: An encoder, compiled or not, on any device.
    """
    found = hashlib.blake2b(digest_size=8)
    for name, value in sorted(without_compile(module.state_dict()).items()):
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def for_use(module: nn.Module) -> None:
    """Switch a module to evaluation mode after its weights were loaded; :func:`for_training` undoes it.

    Args:
        module: An encoder, or a module with one.
    """
    module.eval()
    module.__dict__[_IN_USE] = True


def for_training(module: nn.Module) -> None:
    """Switch a module back to training mode if :func:`for_use` had switched it; any other module is left alone.

    Args:
        module: An encoder, or a module with one.
    """
    if module.__dict__.pop(_IN_USE, False):
        module.train()


def plain_name(name: str) -> str:
    """Return the name of a tensor without the parts that ``torch.compile`` inserts.

    Example:
        >>> plain_name("encoder._orig_mod.head.weight")
        'encoder.head.weight'
    """
    return name.replace("_orig_mod.", "")


def without_compile(state: Mapping[str, T]) -> dict[str, T]:
    """Rename the tensors of a state by :func:`plain_name`.

    Args:
        state: A state dict.
    """
    return {plain_name(name): value for name, value in state.items()}


def read_tensors(path: str | Path, setting: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors by name, and the metadata, of a safetensors file.

    Args:
        path: The file.
        setting: The configuration key that names the file, for the message.

    Raises:
        UserError: If there is no such file, or it is another kind of file.
    """
    with _opened(path, setting) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@contextmanager
def _opened(path: str | Path, setting: str) -> Iterator[Any]:
    if not Path(path).is_file():
        raise UserError(f"{setting}: no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{setting}: {path} is not a safetensors file ({error})") from error


def _apart(state: Mapping[str, object], file: Path) -> dict[str, Tensor]:
    """Copy the tensors of a state to the CPU so that no two share memory."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{file.name}: cannot write {file} (expected tensors, {name} is a {type(value).__name__})")
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return f"shape {list(state[name].shape)}" if name in state else "no such tensor"
