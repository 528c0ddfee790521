"""Images with several labels each, from a table.

Legend: N = images, n = labels of all images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from datamodules.messages import rows_in_words
from datamodules.relations.base import PairDataModule
from datamodules.relations.data import PairData, Side
from datamodules.sampling.splits import split_samples
from datamodules.sources.columns import Encoded, encode, is_list, is_text, refuse_missing, value_type
from datamodules.sources.images import ImageFiles
from datamodules.sources.paths import Paths
from datamodules.sources.tables import read_table
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.relations import Links, SharedLabels


@dataclass(eq=False, repr=False)
class MultiLabelDataModule(PairDataModule):
    """Images with several labels each: two images are linked if they share a label.

    Queries and references are the same images, and an image is neither its own positive nor its own negative. The
    images are split at random, so labels of val and test occur in training: no split of the images can separate all
    their labels. Inputs are float32 ``(B, 3, S, S)`` in [-1, 1].

    Args:
        path: CSV, TSV or Parquet file with a row for each image; image paths are relative to its folder.
        image: Column of image paths.
        labels: Column of labels, see :func:`read_labels`.
        separator: Separator of labels in one string.
        image_size: S.
        cache_dir: Folder in which the preflight remembers files it has read; None: ``lightning-triplets`` in the user's
            cache folder.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: An argument is out of range, or the separator is empty; in ``load``: the file or a column is missing,
            an image is named twice or has no label; in ``prepare_data``: images cannot be read.
    """

    positives_per_query: int = 2
    _: KW_ONLY
    path: str
    image: str = "image"
    labels: str = "labels"
    separator: str = "|"
    image_size: int = 64
    cache_dir: str | None = None
    num_workers: int = 2

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.separator, str) or not self.separator:
            raise UserError(f"datamodule.separator: expected one or more characters, got {self.separator!r}")

    @override
    def load(self) -> PairData:
        """Read the table and split the images.

        Raises:
            UserError: The file or a column is missing, or an image is named twice or has no label.
        """
        path = Path(self.path)
        found = read_table(path, [], [self.image, self.labels], setting="datamodule.path")
        refuse_missing(found[self.image], f"{path}: column {self.image!r}")
        names = [str(name) for name in found[self.image].to_pylist()]
        if len(set(names)) < len(names):
            twice = min(name for name, count in Counter(names).items() if count > 1)
            raise UserError(f"{path}: expected each image once, got {twice} again")
        row, (code, _) = read_labels(found[self.labels], self.separator, f"{path}: column {self.labels!r}")  # (n,)
        labels = Links.of(row, code, len(names))
        splits = split_samples(torch.arange(len(names)), names, seed=self.split_seed, fractions=self.fractions)
        train = splits["train"]
        positives = SharedLabels(labels, among=train)
        files = ImageFiles(Paths(str(path.parent / name) for name in names), self.image_size, self.cache_dir)
        return PairData(
            query=Side(files, len(names)),
            reference=None,
            positives=positives,
            anchors=train[positives.lists(train).sizes > 0],
            candidates=train,
            sought={split: among_themselves(labels, splits[split]) for split in ("val", "test")},
        )

    def classes_in(self, split: str) -> int:
        """Count the labels of a split."""
        return len(self._labels_of(split))

    def classes_trained_on(self, split: str) -> int:
        """Count the labels of a split that training images have too."""
        return int(torch.isin(self._labels_of(split), self._labels_of("train")).sum())

    def _labels_of(self, split: str) -> Tensor:
        """Return the different labels of the images of a split, int64 ``(L,)``."""
        images = self.data.candidates if split == "train" else self.data.sought[split].queries  # (n,)
        assert isinstance(self.data.positives, SharedLabels)
        found: Tensor = torch.unique(self.data.positives.labels.lists(images).columns)
        return found


def read_labels(column: pa.ChunkedArray, separator: str, where: str) -> tuple[Tensor, Encoded]:
    """Read the labels of each row, without surrounding white space; empty labels are dropped.

    Args:
        column: Strings of separated labels, integers (one label each), or lists of strings or integers, N.
        separator: Separator of labels in a string.
        where: Name of the column, for messages.

    Returns:
        Row of each label, int64 ``(n,)``, ascending, and the labels as codes of strings.

    Raises:
        UserError: The column has another type, or a row has no label.

    Example:
        >>> row, labels = read_labels(pa.chunked_array([["sea | sun", "sun"]]), "|", "labels")
        >>> row.tolist(), labels.codes.tolist(), labels.values.to_pylist()
        ([0, 0, 1], [0, 1, 1], ['sea', 'sun'])
    """
    refuse_missing(column, where)
    column = column.cast(value_type(column.type))
    kind = value_type(column.type.value_type if is_list(column.type) else column.type)
    if not (is_text(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{where}: expected strings, integers or lists of these, got {column.type}")
    rows, labels, start, count = [np.zeros(0, dtype=np.int64)], [], 0, 0
    for chunk in column.chunks:
        lists = _as_lists(chunk, separator)
        flat = pc.utf8_trim_whitespace(pc.list_flatten(lists).cast(kind).cast(pa.large_string()))  # (n,)
        full = pc.fill_null(pc.not_equal(flat, ""), False)  # (n,)
        rows.append(pc.list_parent_indices(lists).filter(full).to_numpy().astype(np.int64) + start)
        labels.append(flat.filter(full).dictionary_encode())
        start, count = start + len(chunk), count + len(flat)
    row = torch.from_numpy(np.concatenate(rows))  # (n,)
    without = (row.bincount(minlength=len(column)) == 0).nonzero()[:, 0]
    if len(without):
        raise UserError(f"{where}: no label in {rows_in_words(without)}")
    if is_text(column.type) and count == len(column) > 1:
        single = f"no row has the separator {separator!r}, so each image has a single label"
        rank_zero_warn(f"data: {where}: {single}{_other(column)}")
    return row, encode(pa.chunked_array(labels), where)


def _other(column: pa.ChunkedArray) -> str:
    """Suggest the separator that the labels seem to have."""
    counts = {mark: pc.sum(pc.match_substring(column, mark)).as_py() for mark in (",", ";", "|", "/")}
    mark = max(counts, key=counts.__getitem__)
    if not counts[mark]:
        return ""
    found = f"{mark!r} is in {counts[mark]:,} of {len(column):,} rows"
    return f"; {found}: to split there give datamodule.separator='\"{mark}\"'"


def _as_lists(chunk: pa.Array, separator: str) -> pa.Array:
    """Convert each row to a list of labels."""
    if is_text(chunk.type):
        return pc.split_pattern(chunk.cast(pa.large_string()), separator)
    if is_list(chunk.type):
        return chunk
    return pa.LargeListArray.from_arrays(np.arange(len(chunk) + 1), chunk)


def among_themselves(labels: Links, ids: torch.Tensor) -> Sought:
    """Make each of some samples a query for the others that share a label with it.

    Args:
        labels: Labels of every sample.
        ids: The samples, ascending, int64 ``(n,)``.
    """
    itself = Links(torch.arange(len(ids) + 1), torch.arange(len(ids)))
    return Sought(ids, ids, SharedLabels(labels.lists(ids)), itself)
