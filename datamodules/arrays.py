"""Arrays from a file or from memory.

Legend: N = samples, C = classes, H x W = pixels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.manifest import read_splits
from datamodules.messages import reason_of, shortened
from datamodules.sampling.dataset import Samples
from datamodules.sampling.splits import SPLITS
from datamodules.sources.columns import Strings, encode, encode_labels, unlabelled
from datamodules.sources.vectors import Arrays
from metric_module.errors import UserError

NAMES = ("inputs", "labels", "split", "groups", "queries", "class_names")
KINDS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of inputs that are allowed in addition to floats."""
DAMAGED = (OSError, ValueError, zipfile.BadZipFile, EOFError, MemoryError)
"""What numpy raises for a damaged file; a header may claim any size."""


@dataclass(eq=False, repr=False)
class ArraysDataModule(PKDataModule):
    """Arrays from an ``.npz`` or ``.safetensors`` file, or from memory.

    ===============  =======================================================================================
    ``inputs``       ``(N, ...)``: floats and bools become float32; bytes ``(N, 3, H, W)`` are images and become
                     float32 in [-1, 1]; other integers, signed or of 8 bits, are left unchanged
    ``labels``       ``(N,)``, integers of any size and sign, or strings
    ``split``        ``(N,)``, ``train``, ``val``, ``test`` or 0, 1, 2; without it, classes are split as
                     :func:`datamodules.split_classes` does (integers in numerical order)
    ``groups``       ``(N,)``, integers or strings, such as cameras
    ``queries``      ``(N,)``, bool: whether a sample is a query or else gallery in evaluation
    ``class_names``  ``(C,)``: names of the labels 0 to C - 1
    ===============  =======================================================================================

    Only ``inputs`` and ``labels`` are required. The arrays are held in memory that workers share; a ``.safetensors``
    file is memory-mapped. Nothing is unpickled: arrays of objects are refused.

    Args:
        path: The file; only an ``.npz`` can hold strings.
        arrays: The arrays by name, in place of a file: numpy, torch, or lists.

    Other arguments are those of :class:`datamodules.PKDataModule`. Only square images of bytes are
    augmented by default, and their classes turned.

    Raises:
        UserError: Both or none of ``path`` and ``arrays`` are given; in ``load``: an array is missing or unknown, or
            has another shape or type; in ``prepare_data``: samples cannot be used.

    Example:
        >>> labels = np.arange(10).repeat(4)
        >>> data = ArraysDataModule(2, 2, arrays={"inputs": np.random.rand(40, 5), "labels": labels})
        >>> next(iter(data.train_dataloader())).inputs.shape
        torch.Size([4, 5])
    """

    _: KW_ONLY
    path: str | None = None
    arrays: Mapping[str, Any] | None = None
    augment: AugmentFunction | None = IMAGE_AUGMENT
    class_turns: float | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.path is None) == (self.arrays is None):
            raise UserError("datamodule: expected one of path (a file) and arrays (by name)")

    @override
    def load(self) -> Samples:
        """Read and check the arrays, and split the classes.

        Raises:
            UserError: An array is missing or unknown, or has another shape or type.
        """
        found = read_arrays(self.path) if self.path is not None else dict(self.arrays or {})
        _check_names(found, self.path or "arrays", ("inputs",) if self.any_items else ("inputs", "labels"))
        inputs = _inputs(found["inputs"])
        _check_shapes(found, len(inputs) if inputs.ndim > 1 else -1, tuple(inputs.shape))
        given = "labels" in found
        labels, values = encode_labels(_column(found["labels"]), "labels") if given else unlabelled(len(inputs))
        if "split" in found:
            splits = read_splits(_split_names(found["split"]), "split", complete=not self.any_items)
        else:
            splits = self.own_split(labels)
        return Samples(
            fetch=Arrays(inputs),
            labels=labels,
            splits=splits,
            class_names=_class_names(found.get("class_names"), values),
            groups=encode(_column(found["groups"]), "groups").codes if "groups" in found else None,
            queries=_numbers(found["queries"], "queries") if "queries" in found else None,
        )


def read_arrays(path: str) -> dict[str, Any]:
    """Read all arrays of an ``.npz`` or ``.safetensors`` file, by name, without unpickling.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, has another type, is damaged, or holds objects.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in {".npz", ".safetensors"}:
        raise UserError(f"datamodule.path: expected a file of .npz, .safetensors, got {path}")
    if not Path(path).is_file():
        raise UserError(f"datamodule.path: no such file: {path}")
    try:
        if suffix == ".npz":
            return _read_npz(path)
        from safetensors.torch import load_file

        return dict(load_file(path))
    except Exception as error:  # safetensors raises its own kind
        if suffix == ".npz" and not isinstance(error, DAMAGED):
            raise
        raise UserError(f"datamodule.path: cannot read {path} ({reason_of(error)})") from None


def _read_npz(path: str) -> dict[str, np.ndarray]:
    file = np.load(path, allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise UserError("a single array without a name, as np.save writes; expected a file of np.savez")
    with file:
        return {name: file[name] for name in file.files}


def _check_names(found: Mapping[str, Any], where: str, required: Sequence[str]) -> None:
    unknown = sorted(set(found) - set(NAMES))
    missing = [name for name in required if name not in found]
    if unknown or missing:
        got = f"no {' and no '.join(missing)}" if missing else f"{', '.join(unknown)}"
        raise UserError(f"{where}: expected arrays inputs and labels, perhaps {', '.join(NAMES[2:])}, got {got}")


def _check_shapes(found: Mapping[str, Any], count: int, shape: tuple[int, ...]) -> None:
    if count < 1:
        raise UserError(f"inputs: expected shape (N, ...) of at least two dimensions, N > 0, got {shape}")
    for name in ("labels", "split", "groups", "queries"):
        got = np.shape(found[name]) if name in found else (count,)
        if tuple(got) != (count,):
            raise UserError(f"{name}: expected shape ({count},), as many as inputs, got {tuple(got)}")


def _inputs(array: Any) -> Tensor:
    inputs = _numbers(array, "inputs")
    if not inputs.is_floating_point() and inputs.dtype not in KINDS:
        allowed = ", ".join(str(kind).removeprefix("torch.") for kind in KINDS)
        raise UserError(f"inputs: expected floats, {allowed}, got {str(inputs.dtype).removeprefix('torch.')}")
    return inputs


def _numbers(array: Any, name: str) -> Tensor:
    """Convert an array to a tensor, without a copy if possible."""
    try:
        tensor = torch.as_tensor(array if isinstance(array, Tensor) else np.ascontiguousarray(_native(array)))
    except TypeError:
        raise UserError(f"{name}: expected numbers, got {np.asarray(array).dtype}") from None
    return tensor.detach().cpu()


def _column(array: Any) -> pa.ChunkedArray:
    """Convert a one-dimensional array to a column of a table."""
    if isinstance(array, Tensor):
        return pa.chunked_array([pa.array(array.detach().cpu().numpy())])
    texts = not isinstance(array, np.ndarray) and len(array) > 0 and all(isinstance(value, str) for value in array)
    values = array if texts else _native(array)
    if texts or values.dtype.kind == "U":  # Arrow cuts numpy's strings at their first NUL, numpy drops those at the end
        return pa.chunked_array([pa.array(list(values) if texts else values.tolist(), pa.string())])
    return pa.chunked_array([pa.array(values)])


def _native(array: Any) -> np.ndarray:
    """Convert an array to this machine's byte order."""
    values = np.asarray(array)
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _split_names(array: Any) -> pa.ChunkedArray:
    """Convert split names, or split numbers, to a column of split names."""
    column = _column(array)
    if not pa.types.is_integer(column.type):
        return column
    codes, values = encode(column, "split")
    numbers = values.to_pylist()
    if not set(numbers) <= {0, 1, 2}:
        raise UserError(f"split: expected train, val, test or 0, 1, 2, got {shortened(numbers, 5)}")
    names = pa.array([SPLITS[number] for number in numbers])
    return pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(codes.numpy()), names)])


def _class_names(names: Any, values: pa.Array) -> Sequence[str]:
    """Name the classes by code: the given names, or else the labels."""
    if names is None:
        return Strings(values)
    named, labels = [str(name) for name in np.asarray(names).tolist()], values.to_pylist()
    if not all(isinstance(label, int) and 0 <= label < len(named) for label in labels):
        raise UserError(f"class_names: expected labels from 0 to {len(named) - 1}, got {labels[0]} to {labels[-1]}")
    return [named[label] for label in labels]
