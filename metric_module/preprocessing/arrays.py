"""Preprocessing of numbers: vectors, and arrays of more dimensions such as time series.

Legend: D = numbers of a vector, C = channels and T = time steps of a series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.preprocessing.base import Preprocessing, check_integer, check_one_of

PIXELS = "pixels"
DTYPES = ("float32", PIXELS, "uint8", "int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class VectorInput(Preprocessing):
    """A vector of D numbers as float32.

    Args:
        size: D.

    Raises:
        UserError: The size is not an integer >= 1.

    Example:
        >>> VectorInput(2)([3, 4])
        tensor([3., 4.])
    """

    kind: ClassVar[str] = "vector"

    size: int

    def __post_init__(self) -> None:
        check_integer("size", self.size)

    @override
    def __call__(self, item: Any) -> Tensor:
        """Convert a vector to float32 ``(D,)``.

        Args:
            item: D numbers: a list, an array or a tensor.

        Raises:
            UserError: It has another shape, or holds no numbers.
        """
        return self.inputs(_tensor(item, (self.size,)))

    def inputs(self, rows: Tensor) -> Tensor:
        """Convert a vector, or a batch of them, to float32.

        Args:
            rows: Numbers, any shape.
        """
        return rows.float()


@dataclass(frozen=True)
class SeriesInput(Preprocessing):
    """An array of any fixed shape, such as a time series ``(C, T)``.

    Args:
        shape: Shape of the array.
        dtype: ``float32``; an integer type, passed on unchanged; or ``pixels``: bytes, as float32 in [-1, 1].

    Raises:
        UserError: The shape or the type is none of these.

    Example:
        >>> SeriesInput((1, 2), "pixels")(torch.tensor([[0, 255]], dtype=torch.uint8))
        tensor([[-1.,  1.]])
    """

    kind: ClassVar[str] = "series"

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple):
            raise UserError(f"preprocessing: shape: expected a list of integers, got {self.shape!r}")
        for size in self.shape:
            check_integer("shape", size, least=0)
        check_one_of("dtype", self.dtype, DTYPES)

    @override
    def __call__(self, item: Any) -> Tensor:
        """Convert an array to an encoder input of the same shape.

        Args:
            item: Numbers: nested lists, an array or a tensor.

        Raises:
            UserError: It has another shape, or holds no numbers.
        """
        return self.inputs(_tensor(item, self.shape))

    def inputs(self, rows: Tensor) -> Tensor:
        """Convert arrays, or a batch of them, to encoder inputs.

        Args:
            rows: Tensor of any shape.
        """
        if self.dtype == PIXELS:
            return scaled(rows)
        kind: torch.dtype = getattr(torch, self.dtype)
        return rows.to(kind)


def scaled(pixels: Tensor, mean: float = 0.5, std: float = 0.5) -> Tensor:
    """Map bytes to [0, 1] and normalise them, as float32; the default gives [-1, 1].

    Args:
        pixels: Uint8, any shape.
        mean: Subtracted.
        std: Divisor.
    """
    return pixels.float().div_(255 * std).sub_(mean / std)


def _tensor(item: Any, shape: tuple[int, ...]) -> Tensor:
    """Convert an array to a tensor, and check its shape."""
    array = item if isinstance(item, Tensor) else np.asarray(item)
    if not isinstance(array, Tensor) and array.dtype.kind not in "biuf":
        raise UserError(f"expected numbers, got {type(item).__name__} of {array.dtype}")
    if tuple(array.shape) != shape:
        raise UserError(f"expected numbers of shape {list(shape)}, got shape {list(array.shape)}")
    return array if isinstance(array, Tensor) else torch.tensor(array)
