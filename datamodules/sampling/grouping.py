"""Sample indices grouped by class, in integer arrays: millions of samples take well under a second.

Legend: N = samples, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.messages import shortened
from metric_module.errors import UserError

SHORT_CLASSES = ("repeat", "drop", "error")

Integers = npt.NDArray[np.integer[Any]]
Labels = Tensor | Integers | Sequence[int]


class Classes(NamedTuple):
    """Samples grouped by class.

    Attributes:
        order: Sample indices sorted by class, and by index within a class, int32 ``(N,)`` (int64 from 2^31 samples on).
        starts: Index of the first sample of each class in ``order``, int64 ``(C,)``.
        sizes: Number of samples of each class, int64 ``(C,)``.
        labels: Label of each class, ``(C,)``, ascending.
    """

    order: Integers
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: Integers


def group_by_class(labels: Labels) -> Classes:
    """Group samples by class; dense labels, from 0 to about N, need no sort for the distinct ones.

    Args:
        labels: Class of each sample, any integers, ``(N,)``.

    Raises:
        UserError: The labels are empty, or not integers of shape ``(N,)``.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"expected labels as integers of shape (N,), N > 0, got {array.dtype} of shape {array.shape}")
    if array.min() >= 0 and array.max() < 4 * len(array) + 1024:
        codes, counts = array, np.bincount(array.astype(np.intp, copy=False))
        names = np.flatnonzero(counts)
        sizes = counts[names]
    else:
        names, codes, sizes = np.unique(array, return_inverse=True, return_counts=True)
    return Classes(_sorted_by(codes), np.cumsum(sizes) - sizes, sizes, names)


def _sorted_by(codes: Integers) -> Integers:
    """Sort small non-negative integers stably: code and position share a word, which is several times faster."""
    bits = len(codes).bit_length()
    small = np.dtype(np.int32 if bits < 32 else np.int64)
    places: Integers = np.arange(len(codes), dtype=small)
    words = codes.astype(np.int64)
    words <<= bits
    words |= places
    del places  # frees memory before the cast below
    words.sort()
    words &= (1 << bits) - 1
    return words.astype(small)


def without_short(classes: Classes, samples_per_class: int, short_classes: str) -> Classes:
    """Handle classes of fewer than K samples: keep them for repetition, drop them, or refuse them.

    Args:
        classes: Samples grouped by class.
        samples_per_class: K.
        short_classes: ``repeat``, ``drop`` or ``error``.

    Raises:
        UserError: ``short_classes`` is unknown, or it is ``error`` and a class is too small.
    """
    if short_classes not in SHORT_CLASSES:
        raise UserError(f"unknown short_classes {short_classes!r}: expected one of {', '.join(SHORT_CLASSES)}")
    short = classes.sizes < samples_per_class  # (C,)
    if short_classes == "repeat" or not short.any():
        return classes
    if short_classes == "error":
        small = [f"{label} ({size})" for label, size in zip(classes.labels[short], classes.sizes[short], strict=True)]
        raise UserError(
            f"{short.sum()} classes have fewer than samples_per_class={samples_per_class} samples, by label (samples): "
            f"{shortened(small)}; allow it with short_classes=repeat or drop"
        )
    return classes._replace(starts=classes.starts[~short], sizes=classes.sizes[~short], labels=classes.labels[~short])


def codes(names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Number names in sorted order.

    Args:
        names: Name of each sample, N.

    Returns:
        Labels, int64 ``(N,)``, and the name of each label.

    Example:
        >>> codes(["b", "a", "b"])
        (tensor([1, 0, 1]), ['a', 'b'])
    """
    ordered = sorted(set(names))
    code = {name: label for label, name in enumerate(ordered)}
    return torch.tensor([code[name] for name in names], dtype=torch.int64), ordered
