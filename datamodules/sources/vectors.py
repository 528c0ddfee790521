"""Sources of numbers: a list column of a table, or one array of any shape.

Legend: N = samples, B = samples in a batch, D = numbers of a sample, H x W = pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL.Image import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed
from datamodules.sampling.dataset import BadSampleError, Source, int64_ids
from datamodules.sources.columns import is_list
from datamodules.sources.duplicates import Hashes, hash_rows
from datamodules.sources.pictures import as_pictures
from datamodules.sources.preflight import split_numbers
from metric_module.errors import UserError
from metric_module.preprocessing import ImageInput, SeriesInput, VectorInput
from metric_module.preprocessing.arrays import PIXELS
from metric_module.preprocessing.images import AREA

CHUNK = 1 << 14


class Vectors(Source):
    """Rows of a list column, as float32.

    Args:
        column: Lists of numbers, N.
        where: Name of the column, for the message.

    Raises:
        UserError: The column has another type.

    Example:
        >>> Vectors(pa.chunked_array([[[1, 2], [3, 4]]]))(torch.tensor([1]))
        tensor([[3., 4.]])
    """

    def __init__(self, column: pa.ChunkedArray, where: str = "array") -> None:
        kind = column.type
        if not is_list(kind) or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
            raise UserError(f"{where}: expected lists of numbers, got {kind}")
        self.column = column
        self.size = len(column[0].values)  # D
        self.preprocessing = VectorInput(self.size)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Read rows as float32 ``(B, D)``.

        Args:
            ids: Samples, int64 ``(B,)``.

        Raises:
            BadSampleError: A list is longer or shorter than that of row 0.
        """
        vectors = np.empty((len(ids), self.size), dtype=np.float32)
        for place, row in enumerate(ids.tolist()):
            values = self.column[row].values.to_numpy(zero_copy_only=False)  # (D,)
            if len(values) != self.size:
                raise BadSampleError(row, f"row {row} ({len(values)} numbers, {self.size} in row 0)")
            vectors[place] = values
        return torch.from_numpy(vectors)

    @override
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """Return the first numbers of each row.

        Args:
            ids: Samples.
        """
        return [in_words(self.column[row].values.to_numpy(zero_copy_only=False)) for row in ids]

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """List rows that are not finite as float32, or have another length than row 0.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        used = split_numbers(splits, len(self.column)) > 0  # (N,)
        start, other, infinite = 0, [], []
        for chunk in self.column.chunks:
            sizes = pc.list_value_length(chunk).to_numpy(zero_copy_only=False)  # (n,)
            other += [start + row for row in np.flatnonzero(sizes != self.size).tolist()]
            values = chunk.flatten().to_numpy(zero_copy_only=False)  # (sum of sizes,); a missing number is NaN
            owner = np.repeat(np.arange(start, start + len(chunk)), sizes)
            with np.errstate(over="ignore"):
                finite = np.isfinite(values.astype(np.float32, copy=False))  # (sum of sizes,)
            infinite += np.unique(owner[~finite]).tolist()
            start += len(chunk)
        return [
            *listed(f"rows have not {self.size} numbers, as row 0 has", [f"row {row}" for row in other if used[row]]),
            *listed(
                "rows hold NaN, infinity or more than float32 can", [f"row {row}" for row in infinite if used[row]]
            ),
        ]

    @override
    def contents(self) -> Hashes:
        """Hash the numbers of every row."""
        rows = (row.values.to_numpy(zero_copy_only=False).tobytes() for row in self.column)
        return np.fromiter(map(hash, rows), np.int64, len(self.column))


class Arrays(Source):
    """Rows of one array: floats and bools as float32, images of bytes ``(N, 3, H, W)`` in [-1, 1], integers unchanged.

    Args:
        inputs: The array, ``(N, ...)``.

    Example:
        >>> Arrays(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))(torch.tensor([0])).flatten()
        tensor([1., 1., 1.])
    """

    preprocessing: ImageInput | SeriesInput | VectorInput

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs
        self.pictures = inputs.ndim == 4 and inputs.shape[1] == 3
        self.preprocessing = _preprocessing_of(inputs, self.pictures)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Read inputs ``(B, ...)`` of int64 ids ``(B,)``."""
        rows = self.inputs[ids]
        if isinstance(self.preprocessing, ImageInput):
            return self.preprocessing.inputs_of_tensor(rows)
        return self.preprocessing.inputs(rows)

    @override
    def show(self, ids: Sequence[int]) -> list[Image | str]:
        """Return images as pictures, and the first numbers of everything else.

        Args:
            ids: Samples.
        """
        rows = self(int64_ids(ids))
        return [*as_pictures(rows)] if self.pictures else [in_words(row.flatten().numpy()) for row in rows]

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """List samples that are not finite as float32.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        if not self.inputs.is_floating_point():
            return []
        bad: list[str] = []
        used = split_numbers(splits, len(self.inputs)) > 0  # (N,)
        for start in range(0, len(self.inputs), CHUNK):
            finite = self.inputs[start : start + CHUNK].flatten(1).float().isfinite().all(dim=1)  # (n,)
            bad += [f"sample {start + row}" for row in (~finite).nonzero()[:, 0].tolist() if used[start + row]]
        return listed("samples hold NaN, infinity or more than float32 can", bad)

    @override
    def contents(self) -> Hashes:
        """Hash every row."""
        return hash_rows(self.inputs)


def _preprocessing_of(inputs: Tensor, pictures: bool) -> ImageInput | SeriesInput | VectorInput:
    """Describe how a row of an array becomes an encoder input."""
    shape = tuple(inputs.shape[1:])
    if pictures and inputs.dtype == torch.uint8:
        square = shape[1] == shape[2] > 0
        return ImageInput(shape[1], resize=AREA) if square else SeriesInput(shape, PIXELS)
    real = inputs.is_floating_point() or inputs.dtype == torch.bool
    if real and len(shape) == 1 and shape[0] > 0:
        return VectorInput(shape[0])
    return SeriesInput(shape, "float32" if real else str(inputs.dtype).removeprefix("torch."))


def in_words(numbers: np.ndarray) -> str:
    """Write the first eight numbers: ``in_words(np.ones(9))`` is "1 1 1 1 1 1 1 1 ... (9 numbers)"."""
    few = " ".join(f"{number:.3g}" for number in numbers[:8].tolist())
    return few if len(numbers) <= 8 else f"{few} ... ({len(numbers):,} numbers)"
