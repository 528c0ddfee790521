"""Encode a large batch in chunks under activation checkpointing.

Shapes: B = rows of the batch, C = rows of a chunk, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metric_module.batch import is_texts
from metric_module.errors import UserError


def encode_in_chunks(encode: Callable[[Any], Tensor], inputs: Any, size: int) -> Tensor:
    """Encode a batch chunk by chunk without keeping activations: the backward pass encodes each chunk again.

    Values and gradients are those of ``encode(inputs)`` if samples do not interact. Both forward passes of a chunk use
    the same random numbers, for example for dropout.

    Args:
        encode: Maps inputs ``(C, ...)`` to embeddings ``(C, D)``. It must not change its inputs in place.
        inputs: A tensor ``(B, ...)``, a list of B texts, or a tuple, list or dict of them, nested to any depth.
        size: Number of rows of a chunk, C. A batch that fits into one chunk is encoded as a whole.

    Returns:
        Embeddings ``(B, D)``.

    Raises:
        UserError: If ``size`` is below 1, or the inputs have another form.

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
        UserError: If it is not an integer, or below 1.
    """
    if size is not None and (type(size) is not int or size < 1):
        raise UserError(f"module.encode_chunk_size: expected an integer >= 1 or null, got {size!r}")


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
        for item in inputs:
            yield from _leaves(item)
    elif isinstance(inputs, Tensor) and inputs.ndim > 0:
        yield inputs
    else:
        got = "a 0-dimensional tensor" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise UserError(
            "module.encode_chunk_size: expected inputs of tensors [B, ...] or texts, alone or in a tuple, list or "
            f"dict, got {got}"
        )


def _cut(inputs: Any, rows: slice) -> Any:
    """Select rows of each tensor or list of texts in a nested structure; a mapping becomes a dict."""
    if isinstance(inputs, Mapping):
        return {key: _cut(item, rows) for key, item in inputs.items()}
    if isinstance(inputs, tuple | list) and not is_texts(inputs):
        items = [_cut(item, rows) for item in inputs]
        return type(inputs)(*items) if hasattr(inputs, "_fields") else type(inputs)(items)
    return inputs[rows]
