"""Images that have several labels each, from a table.

Legend: N images, L labels, S x S pixels.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from datamodules.relations.base import PairDataModule
from datamodules.relations.data import PairData, Side
from datamodules.sampling.splits import split_samples
from datamodules.sources.columns import Encoded, encode, is_text, refuse_missing, rows_in_words
from datamodules.sources.images import ImageFiles, check_image_size
from datamodules.sources.preflight import Paths, check_given
from datamodules.sources.tables import read_table
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.relations import Links, SharedLabels


@dataclass(eq=False, repr=False)
class MultiLabelDataModule(PairDataModule):
    """Images with several labels each: two images belong together if they have a label in common.

    Queries and references are the same images, and an image is neither its own positive nor its own negative. The
    images are split at random, so that labels are seen in training: no split of the images keeps all their labels
    apart. Inputs are float32 ``(B, 3, S, S)`` in [-1, 1].

    Args:
        path: A CSV, TSV or Parquet file with a row for each image; images lie relative to its folder.
        image: Column of the images' paths.
        labels: Column of their labels, see :func:`read_labels`.
        separator: Between the labels of an image, where they are in one string.
        image_size: S.
        cache_dir: Where the preflight remembers what it read, see :class:`datamodules.ImageFolderDataModule`.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: The separator is empty; later, if there is no such file, it lacks a column, names an image twice or
            gives one no label, or the preflight finds images that cannot be read.
    """

    _: KW_ONLY
    path: str
    image: str = "image"
    labels: str = "labels"
    separator: str = "|"
    image_size: int = 64
    cache_dir: str | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.path", self.path)
        check_image_size(self.image_size)
        if not isinstance(self.separator, str) or not self.separator:
            raise UserError(f"datamodule.separator: expected one or more characters, got {self.separator!r}")

    @override
    def load(self) -> PairData:
        """Read the table and split the images."""
        path = Path(self.path)
        found = read_table(path, [], [self.image, self.labels], setting="datamodule.path")
        refuse_missing(found[self.image], f"{path}: column {self.image!r}")
        names = [str(name) for name in found[self.image].to_pylist()]
        if len(set(names)) < len(names):
            ordered = sorted(names)
            twice = next(name for name, after in pairwise(ordered) if name == after)
            raise UserError(f"{path}: expected each image once, got {twice} again")
        row, (code, _) = read_labels(found[self.labels], self.separator, f"{path}: column {self.labels!r}")  # (n,)
        labels = Links.of(row, code, len(names))
        splits = split_samples(torch.arange(len(names)), names, seed=self.split_seed, fractions=self.fractions)
        positives = SharedLabels(labels, among=splits["train"])
        train = splits["train"]
        files = ImageFiles(Paths(str(path.parent / name) for name in names), self.image_size, self.cache_dir)
        return PairData(
            query=Side(files, len(names)),
            reference=None,
            positives=positives,
            anchors=train[positives.lists(train).sizes > 0],
            candidates=train,
            sought={split: among_themselves(labels, splits[split]) for split in ("val", "test")},
        )


def read_labels(column: pa.ChunkedArray, separator: str, where: str) -> tuple[Tensor, Encoded]:
    """The labels of each row, without the space around them; empty ones are none.

    Args:
        column: Strings with labels in them, or integers, one label each, or lists of strings or integers, N.
        separator: Between the labels in a string.
        where: How to name the column in a message.

    Returns:
        The row of each label, int64 ``(n,)``, ascending; and the labels, as strings.

    Raises:
        UserError: The column is of another type, or a row has no label.

    Example:
        >>> row, labels = read_labels(pa.chunked_array([["sea | sun", "sun"]]), "|", "labels")
        >>> row.tolist(), labels.codes.tolist(), labels.values.to_pylist()
        ([0, 0, 1], [0, 1, 1], ['sea', 'sun'])
    """
    refuse_missing(column, where)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    value = _value_type(column.type, where)
    rows, labels, start, parts = [np.zeros(0, dtype=np.int64)], [], 0, 0
    for chunk in column.chunks:
        lists = _as_lists(chunk, separator)
        flat = pc.utf8_trim_whitespace(pc.list_flatten(lists).cast(value).cast(pa.large_string()))  # (n,)
        full = pc.fill_null(pc.not_equal(flat, ""), False)  # (n,)
        rows.append(pc.list_parent_indices(lists).filter(full).to_numpy().astype(np.int64) + start)
        labels.append(flat.filter(full).dictionary_encode())
        start, parts = start + len(chunk), parts + len(flat)
    row = torch.from_numpy(np.concatenate(rows))  # (n,)
    without = (row.bincount(minlength=len(column)) == 0).nonzero()[:, 0]
    if len(without):
        raise UserError(f"{where}: no label in {rows_in_words(without)}")
    if is_text(column.type) and parts == len(column) > 1:
        rank_zero_warn(f"data: {where}: no row has the separator {separator!r}, so every image has one label")
    return row, encode(pa.chunked_array(labels), where)


def _value_type(kind: pa.DataType, where: str) -> pa.DataType:
    """What a column's labels are of: strings or integers."""
    value = kind.value_type if _is_list(kind) else kind
    value = value.value_type if pa.types.is_dictionary(value) else value
    if not (is_text(value) or pa.types.is_integer(value)):
        raise UserError(f"{where}: expected strings, integers or lists of these, got {kind}")
    return value


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _as_lists(chunk: pa.Array, separator: str) -> pa.Array:
    """A list of labels for each row."""
    if is_text(chunk.type):
        return pc.split_pattern(chunk.cast(pa.large_string()), separator)
    if _is_list(chunk.type):
        return chunk
    return pa.LargeListArray.from_arrays(np.arange(len(chunk) + 1), chunk)


def among_themselves(labels: Links, ids: torch.Tensor) -> Sought:
    """Every one of some samples looks for the others that share a label with it.

    Args:
        labels: Labels of every sample.
        ids: Which samples, ascending, int64.
    """
    itself = Links(torch.arange(len(ids) + 1), torch.arange(len(ids)))
    return Sought(ids, ids, SharedLabels(labels.lists(ids)), itself)
