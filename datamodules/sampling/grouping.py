"""Sample indices grouped by class, in integer arrays: millions of samples take well under a second.

Legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metric_module.errors import UserError

SHORT_CLASSES = ("repeat", "drop", "error")
SHOWN = 20

Integers = npt.NDArray[np.integer[Any]]
Labels = Tensor | Integers | Sequence[int]


class Classes(NamedTuple):
    """Samples grouped by class.

    Attributes:
        order: Sample indices sorted by class, and by index within a class, int32 ``(N,)`` (int64 from 2^31 samples on).
        starts: Where each class starts in ``order``, int64 ``(C,)``.
        sizes: Number of samples of each class, int64 ``(C,)``.
        labels: Label of each class, ``(C,)``, ascending.
    """

    order: Integers
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: Integers


def group_by_class(labels: Labels) -> Classes:
    """Group samples by class. Labels that run from 0 to about N need no search for the distinct ones.

    Args:
        labels: Class of each sample, any integers, ``(N,)``.

    Raises:
        UserError: The labels are not integers of that shape, or there are none.
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
    """Stable argsort of small non-negative integers: code and place share a word, which sorts several times faster."""
    bits = len(codes).bit_length()
    small = np.dtype(np.int32 if bits < 32 else np.int64)
    places: Integers = np.arange(len(codes), dtype=small)
    words = codes.astype(np.int64)
    words <<= bits
    words |= places
    del places  # before the cast below asks for as much again
    words.sort()
    words &= (1 << bits) - 1
    return words.astype(small)


def without_short(classes: Classes, samples_per_class: int, short_classes: str) -> Classes:
    """Deal with the classes of fewer than K samples: leave them to be repeated, drop them, or refuse them.

    Args:
        classes: Samples grouped by class.
        samples_per_class: K.
        short_classes: ``repeat``, ``drop`` or ``error``.

    Raises:
        UserError: ``short_classes`` is unknown, or it is ``error`` and there are such classes.
    """
    if short_classes not in SHORT_CLASSES:
        raise UserError(f"unknown short_classes {short_classes!r}: expected one of {', '.join(SHORT_CLASSES)}")
    short = classes.sizes < samples_per_class  # (C,)
    if short_classes == "repeat" or not short.any():
        return classes
    if short_classes == "error":
        listed = zip(classes.labels[short][:SHOWN], classes.sizes[short][:SHOWN], strict=True)
        shown = ", ".join(f"{label} ({size})" for label, size in listed)
        more = f" and {short.sum() - SHOWN} more" if short.sum() > SHOWN else ""
        raise UserError(
            f"{short.sum()} classes have fewer than samples_per_class={samples_per_class} samples, by label (samples): "
            f"{shown}{more}; allow it with short_classes=repeat or drop"
        )
    return classes._replace(starts=classes.starts[~short], sizes=classes.sizes[~short], labels=classes.labels[~short])


def codes(names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Labels by the order of the sorted names, int64 ``(N,)``, and those names.

    Example:
        >>> codes(["b", "a", "b"])
        (tensor([1, 0, 1]), ['a', 'b'])
    """
    ordered = sorted(set(names))
    code = {name: label for label, name in enumerate(ordered)}
    return torch.tensor([code[name] for name in names], dtype=torch.int64), ordered
