"""A table with a row for each sample.

Legend: N = rows, n = rows in a split, B = samples in a batch, S = side in pixels, D = numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.messages import rows_in_words, shortened
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.splits import SPLITS
from datamodules.sources.addresses import parent, suffix_of
from datamodules.sources.columns import (
    Encoded,
    Strings,
    encode,
    encode_known,
    encode_labels,
    is_text,
    refuse_missing,
    unlabelled,
    value_type,
)
from datamodules.sources.image_column import checksums_of, images_of
from datamodules.sources.tables import SEPARATORS, read_table
from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Vectors
from metric_module.errors import UserError


@dataclass(eq=False, repr=False)
class ManifestDataModule(PKDataModule):
    """A CSV, TSV or Parquet file with a row for each sample: its input, its class, and optional columns.

    The input is a column of one of three kinds. ``image``: files, read as :class:`datamodules.ImageFolderDataModule`
    does. ``text``: strings; inputs are lists of B strings. ``array``: lists of D numbers (Parquet only); inputs are
    float32 ``(B, D)``. Only the named columns are read.

    Classes are the distinct values of ``label``: any strings or integers. Values of a CSV are always strings, so 007
    and 7 are different classes. Without ``split``, classes are split as :func:`datamodules.split_classes` does
    (integers in numerical order). The id of a sample is its row, from 0.

    Args:
        table: The file, or its address (``s3://...``).
        image: Column of paths, relative to ``root``, or of addresses.
        text: Column of texts.
        array: Column of lists of numbers.
        label: Column of classes; None, or a table without the default column, only where the samples are embedded.
        split: Column of ``train``, ``val`` and ``test``.
        role: Column of ``query`` and ``gallery``, for evaluation; ignored in training rows.
        group: Column of groups such as cameras, strings or integers: retrieval is then also measured across groups.
        root: Folder of the images, or its address; None: the folder of the table.
        checksum: Column of MD5 or SHA-256 of images in an object store, hexadecimal.
        image_size: S.
        cache_dir: Folder in which the preflight remembers files it has read, and where copies of objects are; None:
            ``lightning-triplets`` in the user's cache folder.
        cache_gb: Largest size of these copies in gigabytes.

    Other arguments are those of :class:`datamodules.PKDataModule`. Only images are augmented by
    default, and classes turned.

    Raises:
        UserError: Not exactly one of ``image``, ``text`` and ``array`` is given; in ``load``: the table, a column or a
            value is missing or has another type; in ``prepare_data``: samples cannot be used.
    """

    _: KW_ONLY
    table: str
    image: str | None = None
    text: str | None = None
    array: str | None = None
    label: str | None = "label"
    split: str | None = None
    role: str | None = None
    group: str | None = None
    root: str | None = None
    image_size: int = 64
    cache_dir: str | None = None
    cache_gb: float = 10.0
    checksum: str | None = None
    eval_batch_size: int = 256
    num_workers: int = 2
    augment: AugmentFunction | None = IMAGE_AUGMENT
    class_turns: float | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in (self.image, self.text, self.array) if name is not None]
        if len(given) != 1:
            raise UserError(f"datamodule: expected one of the columns image, text and array, got {len(given)}")
        if self.checksum is not None and self.image is None:
            raise UserError("datamodule.checksum: expected images in an object store, got no column of images")
        if self.array is not None and suffix_of(self.table) in SEPARATORS:
            raise UserError(
                f"datamodule.array: expected a Parquet file (only it holds lists of numbers), got {self.table}"
            )

    @override
    def load(self) -> Samples:
        """Read the columns; image files are not opened yet."""
        words = [name for name in (self.label, self.split, self.role, self.group) if name is not None]
        column = self.image or self.text or self.array or ""
        optional = ["label"] if self.any_items and self.label == "label" else []
        others = [column] if self.checksum is None else [column, self.checksum]
        table = read_table(self.table, words, others, optional=optional)
        source = self._source(table, column, self._where(column))
        labels, classes = self._labels(table)
        if self.split is None:
            splits = self.own_split(labels)
        else:
            splits = read_splits(table[self.split], self._where(self.split), complete=not self.any_items)
        groups = None if self.group is None else encode(table[self.group], self._where(self.group)).codes
        role = None if self.any_items else self.role
        queries = None if role is None else read_roles(table[role], splits, self._where(role))
        del table
        pa.default_memory_pool().release_unused()  # a third of the memory of reading, which would count for each worker
        return Samples(source, labels, splits, Strings(classes), groups=groups, queries=queries)

    def _labels(self, table: pa.Table) -> Encoded:
        if self.label is not None and self.label in table.column_names:
            read = encode_known if self.any_items else encode_labels
            return read(table[self.label], self._where(self.label))
        if not self.any_items:
            raise UserError("datamodule.label: expected the column of classes, got null; only task=embed needs none")
        return unlabelled(len(table))

    def _where(self, column: str) -> str:
        """Name a column for messages."""
        return f"{self.table}: column {column!r}"

    def _source(self, table: pa.Table, name: str, where: str) -> Source:
        column = table[name]
        refuse_missing(column, where)
        if self.array is not None:
            return Vectors(column, where)
        kind = value_type(column.type)
        if not is_text(kind):
            raise UserError(f"{where}: expected strings, got {kind}")
        if self.text is not None:
            return Texts(Strings(column))
        folder = parent(self.table) if self.root is None else self.root
        known = None if self.checksum is None else checksums_of(table[self.checksum], self._where(self.checksum))
        return images_of(column, where, folder, self.image_size, self.cache_dir, self.cache_gb, known)


def read_splits(column: pa.ChunkedArray, where: str, complete: bool = True) -> dict[str, Tensor]:
    """Read the ids of each split, int64, ascending.

    Args:
        column: ``train``, ``val`` or ``test`` for each sample, N.
        where: Name of the column, for messages.
        complete: Whether every split needs rows.

    Raises:
        UserError: The column has other values, or a split has no rows.
    """
    codes, values = encode(column, where)
    names = [str(value) for value in values.to_pylist()]
    _refuse_others(names, SPLITS, where)
    missing = [name for name in SPLITS if name not in names]
    if missing and complete:
        raise UserError(f"{where}: no row of {', '.join(missing)}; without this setting the classes are split")
    return {name: (codes == names.index(name)).nonzero()[:, 0] for name in SPLITS if name in names}


def read_roles(column: pa.ChunkedArray, splits: Mapping[str, Tensor], where: str) -> Tensor:
    """Read whether each sample is a query, bool ``(N,)``.

    Args:
        column: ``query`` or ``gallery`` for each sample of val and test, N.
        splits: Ids of the samples in each split, int64.
        where: Name of the column, for messages.

    Raises:
        UserError: The column has other values, or val or test has a row without value or only one of the two.
    """
    codes, values = encode(pc.fill_null(column.cast(pa.string()), ""), where)
    names = [str(value) for value in values.to_pylist()]
    _refuse_others([name for name in names if name], ("query", "gallery"), where)
    code = {name: names.index(name) if name in names else -1 for name in ("", "query", "gallery")}
    for split in ("val", "test"):
        found = codes[splits[split]]  # (n,)
        empty = splits[split][found == code[""]]
        if len(empty):
            raise UserError(f"{where}: {split} needs query or gallery, nothing in {rows_in_words(empty)}")
        lacking = [role for role in ("query", "gallery") if not torch.any(found == code[role])]
        if lacking:
            raise UserError(f"{where}: {split} has no row of {', '.join(lacking)}")
    return codes == code["query"]


def _refuse_others(names: list[str], allowed: tuple[str, ...], where: str) -> None:
    others = [name for name in names if name not in allowed]
    if others:
        raise UserError(f"{where}: expected {', '.join(allowed)}, got {shortened([repr(name) for name in others], 5)}")
