"""A whole batch of embeddings with the memory of a part of it.

Shapes: B = rows of the batch, C = rows of a chunk, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from metric_module.batch import is_texts
from metric_module.errors import UserError


def encode_in_chunks(encode: Callable[[Any], Tensor], inputs: Any, size: int) -> Tensor:
    """Encode a batch chunk by chunk, and keep no activations: each chunk is encoded again when its gradient is due.

    Values and gradients are those of ``encode(inputs)`` as long as samples do not interact. Random numbers, such as
    those of dropout, are the same both times. The price is a second forward pass.

    Args:
        encode: From ``(C, ...)`` to ``(C, D)``. It must not change its inputs in place.
        inputs: A tensor ``(B, ...)``, a list of B texts, or a tuple, list or dict of such, however deep.
        size: Rows of a chunk, C. A batch that fits into one is encoded as it is.

    Returns:
        Embeddings ``(B, D)``.

    Raises:
        UserError: If ``size`` is below 1, or the inputs are anything else.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> inputs = torch.randn(5, 3)
        >>> torch.allclose(encode_in_chunks(layer, inputs, size=2), layer(inputs))
        True
    """
    check_size(size)
    rows = _rows(inputs)
    if rows <= size:
        return encode(inputs)
    chunks = [_cut(inputs, slice(start, start + size)) for start in range(0, rows, size)]
    return torch.cat([checkpoint(encode, chunk, use_reentrant=False, preserve_rng_state=True) for chunk in chunks])


def check_size(size: int | None) -> None:
    """Accept a chunk size, or None for no chunks.

    Raises:
        UserError: If it is no integer, or below 1.
    """
    if size is not None and (type(size) is not int or size < 1):
        raise UserError(f"module.encode_chunk_size: expected an integer >= 1 or null, got {size!r}")


def refuse_batch_norm(encoder: nn.Module) -> None:
    """Accept an encoder whose samples do not interact through the statistics of a batch.

    Raises:
        UserError: Naming a BatchNorm that takes its statistics from the batch.
    """
    for name, module in encoder.named_modules():
        if has_batch_statistics(module):
            raise UserError(
                f"module.encode_chunk_size: {type(encoder).__name__}.{name} is a {type(module).__name__} in training "
                "mode, whose statistics would be those of a chunk; keep it in evaluation mode (frozen), use a norm "
                "within each sample (LayerNorm, GroupNorm), or encode_chunk_size=null"
            )


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm that takes its statistics from the batch."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def warn_of_local_statistics(encoder: nn.Module, device: str) -> None:
    """Say where an encoder that trains on several processes takes statistics of its share of the batch alone.

    Args:
        encoder: The encoder.
        device: Type of the device: on a ``cpu`` there is no SyncBatchNorm.
    """
    norms = {name: module for name, module in encoder.named_modules() if has_batch_statistics(module)}
    local = [name for name, module in norms.items() if not isinstance(module, nn.SyncBatchNorm)]
    if local:
        advice = "its" if device == "cpu" else "set trainer.sync_batchnorm=true, or its"
        rank_zero_warn(
            f"{type(encoder).__name__} has BatchNorm in {len(local)} places (the first: {local[0]}): {advice} "
            "statistics are those of each process's share of the batch"
        )


def _rows(inputs: Any) -> int:
    sizes = {len(leaf) for leaf in _leaves(inputs)}
    if len(sizes) != 1:
        raise UserError(
            "module.encode_chunk_size: expected inputs that agree in their first dimension, "
            f"got sizes {sorted(sizes) or 'of nothing'}"
        )
    return sizes.pop()


def _leaves(inputs: Any) -> Iterator[Tensor | Sequence[str]]:
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if is_texts(inputs):
        yield inputs
    elif isinstance(inputs, tuple | list):
        for part in inputs:
            yield from _leaves(part)
    elif isinstance(inputs, Tensor) and inputs.ndim > 0:
        yield inputs
    else:
        got = "a 0-dimensional tensor" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise UserError(
            "module.encode_chunk_size: expected inputs of tensors [B, ...] or texts, alone or in a tuple, list or "
            f"dict, got {got}"
        )


def _cut(inputs: Any, rows: slice) -> Any:
    """The same structure with only these rows of each tensor or list of texts; a mapping becomes a dict."""
    if isinstance(inputs, Mapping):
        return {key: _cut(part, rows) for key, part in inputs.items()}
    if isinstance(inputs, tuple | list) and not is_texts(inputs):
        parts = [_cut(part, rows) for part in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)
    return inputs[rows]
